#!/usr/bin/env bash
# validator 13.15.35 (the library beneath class-validator's IsMobilePhone): isMobilePhone(value, 'en-IN') accepts Indian landline numbers.
#
# Expected: "+916122234567" is no mobile number. 0612 is the area code of Patna, and the number is its landline with ten digits. The numbering
#           data of libphonenumber calls the number FIXED_LINE. An SMS to it is paid for and cannot arrive.
# Seen:     isMobilePhone(…, 'en-IN', { strictMode: true }) returns true. The rule for India looks at the first digit only (6 to 9), and
#           many area codes in the north and east of India begin with 6 or 7.
#
# Prints how many of the 4,000 four-digit series from 6000 to 9999 the two libraries judge differently, with examples. Exits with 0 while
# that is so, and with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts validator@13.15.35 libphonenumber-js@1.13.9

cat > main.js <<'JS'
const { parsePhoneNumber } = require('libphonenumber-js/max');
const isMobilePhone = require('validator/lib/isMobilePhone').default;
const landlines = [];
for (let series = 6000; series < 10_000; series++) {
  const number = `+91${series}234567`;
  const type = parsePhoneNumber(number).getType();
  if (type === 'FIXED_LINE' && isMobilePhone(number, 'en-IN', { strictMode: true })) landlines.push(series);
}
console.log(`${landlines.length} of 4000 series are landlines for libphonenumber-js 1.13.9 and mobile for validator 13.15.35`);
console.log(`the first: ${landlines.slice(0, 8).join(', ')}`);
console.log(`+916122234567 (Patna): ${parsePhoneNumber('+916122234567').getType()}, isMobilePhone ${isMobilePhone('+916122234567', 'en-IN', { strictMode: true })}`);
process.exitCode = landlines.length >= 300 && landlines.includes(6122) ? 0 : 1;
JS
node main.js
