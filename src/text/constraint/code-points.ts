/** Sets of characters, as sorted ranges of code points, and how a JSON string writes them in a grammar. */

export type Ranges = readonly (readonly [from: number, to: number])[]

const LAST = 0x10ffff
const LAST_ASCII = 0x7f
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
  const bodies = bodiesOf(plain)
  const escapes = ESCAPES.filter(([code]) => has(code)).map(([, letter]) => escapeOf(letter))
  return [...bodies, ...escapes]
}

/** Bodies that match some of the characters, as they are. */
export function textCharacters(ranges: Ranges): string[] {
  const kept = complement([...complement(ranges), ...NEVER_TEXT])
  return bodiesOf(kept)
}

function escapeOf(letter: string): string {
  return letter === '"' || letter === "\\" ? `"\\\\\\${letter}"` : `"\\\\${letter}"`
}

/** Bodies of a set. XGrammar's classes know ASCII alone: one that names what it has not has all the rest as well. */
function bodiesOf(ranges: Ranges): string[] {
  const ascii = within(ranges, 0, LAST_ASCII)
  const wide = within(ranges, LAST_ASCII + 1, LAST)
  if (sizeOf(wide) > MOST_SPELT) return [`[^${written(within(complement(ranges), 0, LAST_ASCII))}]`]
  const spelt = wide.flatMap(([from, to]) =>
    Array.from({ length: to - from + 1 }, (_, i) => `"${String.fromCodePoint(from + i)}"`),
  )
  return [
    ...(ascii.length === 0 ? [] : [`[${written(ascii)}]`]),
    ...(spelt.length === 0 ? [] : [spelt.length === 1 ? spelt[0]! : `(${spelt.join(" | ")})`]),
  ]
}

/** Characters beyond ASCII that are told one by one. */
const MOST_SPELT = 300
/** Spaces and line ends beyond ASCII: in a set of all but some of these they are not told from others. */
const WIDE_SPACE: Ranges = [
  ...([
    [0x85, 0x85],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ] as const),
]

/** Whether a grammar can tell these from others: beyond ASCII a few characters, or all. */
export function canBeTold(ranges: Ranges): boolean {
  const wide = within(ranges, LAST_ASCII + 1, LAST)
  if (sizeOf(wide) <= MOST_SPELT) return true
  const others = within(complement([...ranges, ...WIDE_SPACE]), LAST_ASCII + 1, LAST)
  return others.length === 0
}

function within(ranges: Ranges, least: number, most: number): Ranges {
  return rangesOf(ranges)
    .filter(([from, to]) => from <= most && to >= least)
    .map(([from, to]) => [Math.max(from, least), Math.min(to, most)])
}

function sizeOf(ranges: Ranges): number {
  return ranges.reduce((sum, [from, to]) => sum + to - from + 1, 0)
}

function written(ranges: Ranges): string {
  return ranges
    .map(([from, to]) => (from === to ? character(from) : `${character(from)}-${character(to)}`))
    .join("")
}

/** XGrammar reads as many hexadecimal digits after `\\x` as there are: `\\u` takes four. */
function character(code: number): string {
  if (code < 0x20 || code === 0x7f) return `\\u${code.toString(16).padStart(4, "0")}`
  const text = String.fromCodePoint(code)
  return /[\]\\^-]/.test(text) ? `\\${text}` : text
}
