/** Numbers between bounds, as grammars: exact, digit by digit. Without an exponent, and with at most six decimals. */

/** A bound as it was given: `digits` / 10^`decimals`. */
interface Decimal {
  digits: bigint
  decimals: number
}

export interface Range {
  /** As JSON writes it. */
  min: string | null
  max: string | null
  /** The bound itself is out. */
  minOut: boolean
  maxOut: boolean
}

/** Digits before the point of numbers without an upper bound. */
const MOST_DIGITS = 20
const MOST_DECIMALS = 6

/** A grammar for the numbers of a range with so many decimals at most, or null when there is none. Bounds are under 10^19. */
export function rangeGrammar(range: Range, mostDecimals = MOST_DECIMALS): string | null {
  const { min, max } = range
  // With more digits than this before the point a number is beyond every bound.
  const width = Math.max(...[min ?? "0", max ?? "0"].map((bound) => wholeDigits(decimalOf(bound))))
  const choices: string[] = []
  for (let decimals = 0; decimals <= mostDecimals; decimals++) {
    const most = 10n ** BigInt(width + decimals) - 1n
    const low = min === null ? -most : scaledUp(decimalOf(min), decimals, range.minOut)
    const high = max === null ? most : -scaledUp(negated(decimalOf(max)), decimals, range.maxOut)
    choices.push(...signed(low, high, decimals))
  }
  const longer = `[1-9] [0-9]{${width},${MOST_DIGITS - 1}}${mostDecimals === 0 ? "" : ` ("." [0-9]{1,${mostDecimals}})?`}`
  if (max === null) choices.push(longer)
  if (min === null) choices.push(`"-" ${longer}`)
  return choices.length === 0 ? null : choices.join(" | ")
}

/** Numbers n / 10^decimals for n of [low, high]. Zero has no sign. */
function signed(low: bigint, high: bigint, decimals: number): string[] {
  const choices: string[] = []
  if (low < 0n && low <= high) {
    const nearest = high < 0n ? -high : 1n
    // A group of its own: XGrammar mixes up long choices of which some begin with the same and others with the sign.
    choices.push(`"-" (${between(nearest, -low, decimals).join(" | ")})`)
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

/** Exactly as it is written. */
function decimalOf(text: string): Decimal {
  const [mantissa, exponent = "0"] = text.toLowerCase().split("e")
  const [head, tail = ""] = mantissa!.split(".")
  const decimals = tail.length - Number(exponent)
  const digits = BigInt(head! + tail)
  return decimals >= 0 ? { digits, decimals } : { digits: digits * 10n ** BigInt(-decimals), decimals: 0 }
}

/** Digits before the point. */
function wholeDigits({ digits, decimals }: Decimal): number {
  const whole = (digits < 0n ? -digits : digits) / 10n ** BigInt(decimals)
  return String(whole).length
}

/** Numbers n / 10^decimals for n of [low, high], none negative: a choice for each number of digits, and one for all numbers
 * of digits of which every number is in. No two choices that begin with the same digits stand beside each other: of such
 * XGrammar mixes up which go on with what. */
function between(low: bigint, high: bigint, decimals: number): string[] {
  const choices: string[] = []
  const least = decimals + 1
  const longest = Math.max(least, String(high).length)
  let full: [from: number, to: number] | null = null
  for (let length = Math.max(least, String(low).length); length <= longest; length++) {
    const from = length === least ? 0n : 10n ** BigInt(length - 1)
    const to = 10n ** BigInt(length) - 1n
    const a = low > from ? low : from
    const b = high < to ? high : to
    if (a > b) continue
    if (length > least && a === from && b === to) full = [full?.[0] ?? length, length]
    else choices.push(digitsBetween(padded(a, length), padded(b, length), length - decimals))
  }
  if (full !== null) choices.push(digitsOf(full[0] - decimals, full[1] - decimals, decimals))
  return choices
}

function padded(value: bigint, length: number): string {
  return String(value).padStart(length, "0")
}

/** All numbers of so many digits before the point, from 10 on. */
function digitsOf(least: number, most: number, decimals: number): string {
  return `[1-9] [0-9]{${least - 1},${most - 1}}${decimals === 0 ? "" : ` "." [0-9]{${decimals}}`}`
}

/** Digit strings of one length from `a` to `b`, with a point before the digit `point` (none when that is their
 * number). */
function digitsBetween(a: string, b: string, point: number): string {
  const dot = (at: number) => (at === point ? '"." ' : "")
  const any = (at: number): string => {
    if (at === a.length) return ""
    const until = at < point ? point : a.length
    return `${dot(at)}[0-9]{${until - at}} ${any(until)}`
  }
  const walk = (at: number, low: boolean, high: boolean): string => {
    if (at === a.length) return ""
    if (!low && !high) return any(at)
    const from = low ? Number(a[at]) : 0
    const to = high ? Number(b[at]) : 9
    if (from === to) return `${dot(at)}"${from}" ${walk(at + 1, low, high)}`
    // A bound whose digits go on as far as they can is none.
    const lowGoesOn = low && /[1-9]/.test(a.slice(at + 1))
    const highGoesOn = high && /[0-8]/.test(b.slice(at + 1))
    const [first, last] = [lowGoesOn ? from + 1 : from, highGoesOn ? to - 1 : to]
    const choices: string[] = []
    if (lowGoesOn) choices.push(`"${from}" ${walk(at + 1, true, false)}`)
    if (first <= last) choices.push(`[${first}-${last}] ${any(at + 1)}`)
    if (highGoesOn) choices.push(`"${to}" ${walk(at + 1, false, true)}`)
    return `${dot(at)}(${choices.join(" | ")})`
  }
  return walk(0, true, true).trim()
}
