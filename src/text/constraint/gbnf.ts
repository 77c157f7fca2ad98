/** Pieces of llama.cpp's grammar notation (GBNF): JSON's own rules, OpenAI's string formats, literals. */

/** JSON. White space is bounded, so that a model cannot fill its answer with it. */
export const BASE_RULES = String.raw`value ::= object | array | string | number | boolean | null
object ::= "{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"
array ::= "[" ws (value ws ("," ws value ws)*)? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" hex hex hex hex)
natural ::= "0" | [1-9] [0-9]{0,15}
positive ::= [1-9] [0-9]{0,15}
integer ::= "0" | "-"? positive
magnitude ::= natural ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
number ::= "-"? magnitude
boolean ::= "true" | "false"
null ::= "null"
hex ::= [0-9a-fA-F]
ws ::= | " " | "\n" [ \t]{0,20}
`

const DATE = `[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])`
const HOUR = `([01] [0-9] | "2" [0-3])`
const TIME = `${HOUR} ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? ("Z" | [-+] ${HOUR} ":" [0-5] [0-9])`
const CLOCK = `"T" ([0-9]{1,4} "H" ([0-9]{1,4} "M")? ([0-9]{1,4} "S")? | [0-9]{1,4} "M" ([0-9]{1,4} "S")? | [0-9]{1,4} "S")`
const DAYS = `([0-9]{1,4} "Y" ([0-9]{1,4} "M")? ([0-9]{1,4} "D")? | [0-9]{1,4} "M" ([0-9]{1,4} "D")? | [0-9]{1,4} "D")`
const LABEL = `[a-zA-Z0-9] ("-"? [a-zA-Z0-9]){0,30}`
const OCTET = `("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9]? [0-9])`

/** What is between the quotation marks of a string with this `format`. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  "date-time": `${DATE} "T" ${TIME}`,
  duration: `"P" ([0-9]{1,4} "W" | ${DAYS} (${CLOCK})? | ${CLOCK})`,
  email: `[a-zA-Z0-9_+-]{1,32} ("." [a-zA-Z0-9_+-]{1,32}){0,3} "@" ${LABEL} ("." ${LABEL}){1,4}`,
  hostname: `${LABEL} ("." ${LABEL}){0,4}`,
  ipv4: `${OCTET} ("." ${OCTET}){3}`,
  ipv6: `hex{1,4} (":" hex{1,4}){7}`,
  uuid: `hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}`,
}

/** A terminal that matches exactly this text. */
export function literal(text: string): string {
  const escaped = text.replace(/["\\\n\r\t]/g, (c) => ESCAPES[c]!)
  return `"${escaped}"`
}

const ESCAPES: Record<string, string> = { '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }
