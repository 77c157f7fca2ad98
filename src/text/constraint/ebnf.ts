/** Pieces of XGrammar's notation (EBNF): JSON's own rules, OpenAI's string formats, literals.
 *
 * The shape of a rule decides what it costs. XGrammar prepares for each state of a rule which tokens go on from there,
 * and tries those that lead out of the rule again at every step: so a rule that many tokens pass (text) is one rule to
 * its last character, the closing mark included, that calls itself (0.03 ms a step; as a repetition of a rule of one
 * character, 140 ms). Where most of the vocabulary may come, nothing is counted (counted.ts does that). */

/** JSON. White space is bounded, so that a model cannot fill its answer with it. */
export const BASE_RULES = String.raw`value ::= object | array | string | number | boolean | null
object ::= "{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"
array ::= "[" ws (value ws ("," ws value ws)*)? "]"
string ::= "\"" chars
chars ::= "\"" | [^"\\\x7F\x00-\x1F] chars | "\\" (["\\bfnrt/] | "u" hex hex hex hex) chars
natural ::= "0" | [1-9] [0-9]{0,18}
positive ::= [1-9] [0-9]{0,18}
integer ::= "0" | "-"? positive
magnitude ::= natural ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
number ::= "-"? magnitude
boolean ::= "true" | "false"
null ::= "null"
hex ::= [0-9a-fA-F]
ws ::= "" | " " | "\n" [ \t]{0,20}
`

const DAYS_31 = `("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])`
const DAYS_30 = `("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")`
const DAYS_28 = `"02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])`
const LEAP_YEAR = `([0-9]{2} ("0" [48] | [2468] [048] | [13579] [26]) | ([02468] [048] | [13579] [26]) "00")`
const DATE = `([0-9]{4} "-" (${DAYS_31} | ${DAYS_30} | ${DAYS_28}) | ${LEAP_YEAR} "-02-29")`
const HOUR = `([01] [0-9] | "2" [0-3])`
const TIME = `${HOUR} ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? ("Z" | [-+] ${HOUR} ":" [0-5] [0-9])`
const CLOCK = `"T" ([0-9]{1,4} "H" ([0-9]{1,4} "M")? ([0-9]{1,4} "S")? | [0-9]{1,4} "M" ([0-9]{1,4} "S")? | [0-9]{1,4} "S")`
const DAYS = `([0-9]{1,4} "Y" ([0-9]{1,4} "M")? ([0-9]{1,4} "D")? | [0-9]{1,4} "M" ([0-9]{1,4} "D")? | [0-9]{1,4} "D")`
const LABEL = `[a-zA-Z0-9]+ ("-" [a-zA-Z0-9]+)*`
const OCTET = `("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9]? [0-9])`

const SEGMENT = `([A-Za-z0-9._~!$&'()*+,;=:@-] | "%" hex hex)*`
const URI = `[a-z] [a-z0-9+.-]{0,20} "://" ${LABEL} ("." ${LABEL})* (":" [0-9]{1,5})? ("/" ${SEGMENT})* ("?" ${SEGMENT})? ("#" ${SEGMENT})?`

interface Format {
  /** What is between the quotation marks. */
  body: string
  /** Most characters. */
  max?: number
}

/** Strings with a `format`. A label of a host's name has at most 63 characters: so has the whole. */
export const FORMATS: Readonly<Record<string, Format>> = {
  date: { body: DATE },
  time: { body: TIME },
  "date-time": { body: `${DATE} "T" ${TIME}` },
  duration: { body: `"P" ([0-9]{1,4} "W" | ${DAYS} (${CLOCK})? | ${CLOCK})` },
  email: {
    body: `[a-zA-Z0-9_+-]+ ("." [a-zA-Z0-9_+-]+)* "@" (${LABEL} ".")+ [a-zA-Z]{2,20}`,
    max: 63,
  },
  hostname: { body: `${LABEL} ("." ${LABEL})*`, max: 63 },
  ipv4: { body: `${OCTET} ("." ${OCTET}){3}` },
  ipv6: { body: `hex{1,4} (":" hex{1,4}){7}` },
  uri: { body: URI },
  url: { body: URI },
  "uri-reference": { body: `(${URI} | ("/" ${SEGMENT})+)` },
  base64: { body: `([A-Za-z0-9+/]{4})* ([A-Za-z0-9+/]{2} "==" | [A-Za-z0-9+/]{3} "=")?` },
  byte: { body: `([A-Za-z0-9+/]{4})* ([A-Za-z0-9+/]{2} "==" | [A-Za-z0-9+/]{3} "=")?` },
  base64url: { body: "[A-Za-z0-9_-]+" },
  uuid: { body: `hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}` },
}

/** A terminal that matches exactly this text. */
export function literal(text: string): string {
  const escaped = text.replace(/["\\\n\r\t]/g, (c) => ESCAPES[c]!)
  return `"${escaped}"`
}

const ESCAPES: Record<string, string> = { '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }

export function alternatives(bodies: readonly string[]): string {
  const distinct = [...new Set(bodies)]
  return distinct.length === 1 ? distinct[0]! : `(${distinct.join(" | ")})`
}

export function group(body: string): string {
  return /^[\w-]+$/.test(body) ? body : `(${body})`
}
