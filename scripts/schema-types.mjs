// The types of the client: the schemas of the OpenAPI document that it uses, as one TypeScript file. A keyword that is not
// known here is an error, so that a new kind of schema is not taken for `unknown`.

const ROOTS = [
  'SendOtpRequest',
  'OtpRequestResponse',
  'OtpStatusResponse',
  'VerifyOtpRequest',
  'VerifiedResponse',
  'RefreshTokenRequest',
  'TokensResponse',
  'SessionsResponse',
  'MeResponse',
  'Problem',
];
const REFERENCE = '#/components/schemas/';
const KEYWORDS = new Set([
  ...[
    'type',
    'properties',
    'required',
    'items',
    'enum',
    '$ref',
    'allOf',
    'oneOf',
    'additionalProperties',
    'format',
  ],
  ...[
    'description',
    'example',
    'default',
    'minimum',
    'maximum',
    'minLength',
    'maxLength',
    'pattern',
    'nullable',
  ],
]);

/** The text of `client/src/api.d.ts`, before Prettier. */
export function schemaTypes(document) {
  const { schemas } = document.components;
  const names = [...ROOTS];
  const lines = [];
  for (let i = 0; i < names.length; i++) {
    const refer = (name) => {
      if (!names.includes(name)) names.push(name);
      return `components['schemas']['${name}']`;
    };
    const schema = schemas[names[i]];
    if (!schema) throw new Error(`The OpenAPI document has no schema ${names[i]}`);
    lines.push(`${names[i]}: ${typeOf(schema, refer)};`);
  }
  return `// Written by \`npm run client:types\` from the OpenAPI document.
export interface components { schemas: { ${lines.join('\n')} } }`;
}

function typeOf(schema, refer) {
  const unknown = Object.keys(schema).find((keyword) => !KEYWORDS.has(keyword));
  if (unknown)
    throw new Error(`A schema uses the keyword ${unknown}, which scripts/schema-types.mjs does not know`);
  if (schema.$ref) return refer(schema.$ref.slice(REFERENCE.length));
  if (schema.allOf) return schema.allOf.map((part) => typeOf(part, refer)).join(' & ');
  if (schema.oneOf) return schema.oneOf.map((part) => typeOf(part, refer)).join(' | ');
  if (schema.enum)
    return schema.enum.map((value) => (typeof value === 'string' ? `'${value}'` : value)).join(' | ');
  if (schema.type === 'array') return `${typeOf(schema.items, refer)}[]`;
  if (schema.type === 'integer') return 'number';
  if (schema.type !== 'object') return schema.type;
  const fields = Object.entries(schema.properties ?? {}).map(
    ([name, field]) => `${name}${schema.required?.includes(name) ? '' : '?'}: ${typeOf(field, refer)};`,
  );
  if (schema.additionalProperties) fields.push('[other: string]: unknown;');
  return `{ ${fields.join('\n')} }`;
}
