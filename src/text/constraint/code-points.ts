/** Sets of characters, as sorted ranges of code points, and how a JSON string writes them in a grammar. */

export type Ranges = readonly (readonly [from: number, to: number])[]

const LAST = 0x10ffff
const SURROGATES = [0xd800, 0xdfff] as const

export function rangesOf(ranges: Ranges): Ranges {
  const sorted = ranges.toSorted((a, b) => a[0] - b[0])
  const joined: [number, number][] = []
  for (const [from, to] of sorted) {
    const last = joined.at(-1)
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else joined.push([from, to])
  }
  return joined
}

/** All others that a text may have. */
export function complement(ranges: Ranges): Ranges {
  const others: [number, number][] = []
  let next = 0
  for (const [from, to] of rangesOf([...ranges, SURROGATES])) {
    if (from > next) others.push([next, from - 1])
    next = to + 1
  }
  if (next <= LAST) others.push([next, LAST])
  return others
}

export const ANY: Ranges = complement([])

/** The bytes that marks begin with (counted.ts), and the end of a text in other languages. */
const NEVER_TEXT: Ranges = [[0, 1]]

/** What stands for itself in no JSON string. */
const NEVER_PLAIN: Ranges = [
  ...([
    [0, 0x1f],
    [0x22, 0x22],
    [0x5c, 0x5c],
    [0x7f, 0x7f],
  ] as const),
]
const ESCAPES: readonly (readonly [code: number, escape: string])[] = [
  ...([
    [0x22, '"'],
    [0x5c, "\\"],
    [8, "b"],
    [9, "t"],
    [10, "n"],
    [12, "f"],
    [13, "r"],
  ] as const),
]

/** Bodies each of which matches some of the characters inside a JSON string; together all that it can have. */
export function jsonCharacters(ranges: Ranges): string[] {
  const has = (code: number) => ranges.some(([from, to]) => from <= code && code <= to)
  const plain = complement([...complement(ranges), ...NEVER_PLAIN])
  const bodies = plain.length === 0 ? [] : [classOf(plain)]
  const escapes = ESCAPES.filter(([code]) => has(code)).map(([, letter]) => escapeOf(letter))
  return [...bodies, ...escapes]
}

/** Bodies that match some of the characters, as they are. */
export function textCharacters(ranges: Ranges): string[] {
  const kept = complement([...complement(ranges), ...NEVER_TEXT])
  return kept.length === 0 ? [] : [classOf(kept)]
}

function escapeOf(letter: string): string {
  return letter === '"' || letter === "\\" ? `"\\\\\\${letter}"` : `"\\\\${letter}"`
}

/** A set that goes on to the last code point is written by what it has not. */
function classOf(ranges: Ranges): string {
  const open = ranges.at(-1)![1] === LAST
  const written = open ? complement(ranges) : ranges
  const texts = written.map(([from, to]) =>
    from === to ? character(from) : `${character(from)}-${character(to)}`,
  )
  return `[${open ? "^" : ""}${texts.join("")}]`
}

/** XGrammar reads as many hexadecimal digits after `\\x` as there are: `\\u` takes four. */
function character(code: number): string {
  if (code < 0x20 || code === 0x7f) return `\\u${code.toString(16).padStart(4, "0")}`
  const text = String.fromCodePoint(code)
  return /[\]\\^-]/.test(text) ? `\\${text}` : text
}
