/** Numbers between bounds, as grammars: exact, digit by digit. Without an exponent, and with at most six decimals. */

/** A bound as it was given: `digits` / 10^`decimals`. */
interface Decimal {
  digits: bigint
  decimals: number
}

export interface Range {
  min: number | null
  max: number | null
  /** The bound itself is out. */
  minOut: boolean
  maxOut: boolean
}

/** Digits before the point of numbers without an upper bound. */
const MOST_DIGITS = 16
const MOST_DECIMALS = 6

/** A grammar for the numbers of a range, or null when there is none. Bounds are under 10^15. */
export function rangeGrammar(range: Range, whole: boolean): string | null {
  const { min, max } = range
  // With more digits than this before the point a number is beyond every bound.
  const width = Math.max(...[min ?? 0, max ?? 0].map((bound) => String(Math.trunc(Math.abs(bound))).length))
  const choices: string[] = []
  for (let decimals = 0; decimals <= (whole ? 0 : MOST_DECIMALS); decimals++) {
    const most = 10n ** BigInt(width + decimals) - 1n
    const low = min === null ? -most : scaledUp(decimalOf(min), decimals, range.minOut)
    const high = max === null ? most : -scaledUp(negated(decimalOf(max)), decimals, range.maxOut)
    choices.push(...signed(low, high, decimals))
  }
  const longer = `[1-9] [0-9]{${width},${MOST_DIGITS - 1}}${whole ? "" : ` ("." [0-9]{1,${MOST_DECIMALS}})?`}`
  if (max === null) choices.push(longer)
  if (min === null) choices.push(`"-" ${longer}`)
  return choices.length === 0 ? null : choices.join(" | ")
}

/** Numbers n / 10^decimals for n of [low, high]. Zero has no sign. */
function signed(low: bigint, high: bigint, decimals: number): string[] {
  const choices: string[] = []
  if (low < 0n && low <= high) {
    const nearest = high < 0n ? -high : 1n
    choices.push(...between(nearest, -low, decimals).map((text) => `"-" ${text}`))
  }
  if (high >= 0n && low <= high) choices.push(...between(low > 0n ? low : 0n, high, decimals))
  return choices
}

/** The least whole number that is not under a bound (or is above it), as a multiple of 10^-decimals. */
function scaledUp(bound: Decimal, decimals: number, out: boolean): bigint {
  const numerator = bound.digits * 10n ** BigInt(decimals)
  const denominator = 10n ** BigInt(bound.decimals)
  const down = numerator / denominator - (numerator < 0n && numerator % denominator !== 0n ? 1n : 0n)
  if (down * denominator === numerator) return out ? down + 1n : down
  return down + 1n
}

function negated({ digits, decimals }: Decimal): Decimal {
  return { digits: -digits, decimals }
}

/** A number's shortest decimal writing, exactly. */
function decimalOf(value: number): Decimal {
  const [mantissa, exponent = "0"] = value.toExponential().split("e")
  const [head, tail = ""] = mantissa!.split(".")
  const decimals = tail.length - Number(exponent)
  const digits = BigInt(head! + tail)
  return decimals >= 0 ? { digits, decimals } : { digits: digits * 10n ** BigInt(-decimals), decimals: 0 }
}

/** Numbers n / 10^decimals for n of [low, high], none negative: a choice for each number of digits. */
function between(low: bigint, high: bigint, decimals: number): string[] {
  const choices: string[] = []
  const least = decimals + 1
  const longest = Math.max(least, String(high).length)
  for (let length = Math.max(least, String(low).length); length <= longest; length++) {
    const from = length === least ? 0n : 10n ** BigInt(length - 1)
    const to = 10n ** BigInt(length) - 1n
    const a = low > from ? low : from
    const b = high < to ? high : to
    if (a > b) continue
    const pad = (value: bigint) => String(value).padStart(length, "0")
    choices.push(...digitsBetween(pad(a), pad(b), length - decimals).map((parts) => parts.join(" ")))
  }
  return choices
}

/** Digit strings of one length from `a` to `b`, with a point before the digit `point` (none when that is their
 * number). */
function digitsBetween(a: string, b: string, point: number): string[][] {
  const lead = (at: number, rest: string[]) => (at === point ? ['"."', ...rest] : rest)
  const any = (at: number): string[] => {
    if (at === a.length) return []
    const until = at < point ? point : a.length
    return lead(at, [`[0-9]{${until - at}}`, ...any(until)])
  }
  const rest = (at: number, low: boolean, high: boolean): string[][] =>
    at === a.length ? [[]] : !low && !high ? [any(at)] : walk(at, low, high)
  const walk = (at: number, low: boolean, high: boolean): string[][] => {
    const from = low ? Number(a[at]) : 0
    const to = high ? Number(b[at]) : 9
    if (from === to) return rest(at + 1, low, high).map((parts) => lead(at, [`"${from}"`, ...parts]))
    // A bound whose digits go on as far as they can is none.
    const lowGoesOn = low && /[1-9]/.test(a.slice(at + 1))
    const highGoesOn = high && /[0-8]/.test(b.slice(at + 1))
    const [first, last] = [lowGoesOn ? from + 1 : from, highGoesOn ? to - 1 : to]
    const choices: string[][] = []
    if (lowGoesOn)
      choices.push(...rest(at + 1, true, false).map((parts) => lead(at, [`"${from}"`, ...parts])))
    if (first <= last) choices.push(lead(at, [`[${first}-${last}]`, ...any(at + 1)]))
    if (highGoesOn) choices.push(...rest(at + 1, false, true).map((parts) => lead(at, [`"${to}"`, ...parts])))
    return choices
  }
  return walk(0, true, true)
}
