/** Of a provider, what a challenge is begun with. */
export const MADE_HERE = { name: 'startmessaging', resendsCode: true };
export const MADE_UPSTREAM = { name: 'startmessaging', resendsCode: false };
