/** Plain reading of a row of logits: the greedy choice, bans and biases, log-probabilities. */
import type { Sampling, TokenLogprob } from "../port.ts"

/** Index of the largest value; the first of equals. Eight at a time: half the time of one by one, and every row
 * of a step comes through here. */
export function argmax(row: Float32Array): number {
  let best = 0
  let top = row[0]!
  const blocks = row.length & ~7
  for (let i = 0; i < blocks; i += 8) {
    const some =
      row[i]! > top ||
      row[i + 1]! > top ||
      row[i + 2]! > top ||
      row[i + 3]! > top ||
      row[i + 4]! > top ||
      row[i + 5]! > top ||
      row[i + 6]! > top ||
      row[i + 7]! > top
    if (some) [best, top] = largest(row, i, i + 8, best)
  }
  return largest(row, blocks, row.length, best)[0]
}

function largest(row: Float32Array, from: number, to: number, best: number): [index: number, value: number] {
  for (let i = from; i < to; i++) if (row[i]! > row[best]!) best = i
  return [best, row[best]!]
}

/** Applies, in place, what a request forbids and prefers for its next token; `produced`: output tokens before it. */
export function biasLogits(
  row: Float32Array,
  sampling: Sampling,
  ends: readonly number[],
  produced: number,
): void {
  for (const [token, bias] of sampling.logitBias) if (token in row) row[token]! += bias
  // A finished grammar allows nothing but an end token: that is looked at with its mask.
  if (sampling.grammar === null && isEndless(sampling, produced))
    for (const token of ends) row[token] = -Infinity
}

/** Takes tokens from a row, in place, unless nothing would be left to choose: a grammar may let nothing else come. */
export function banTokens(row: Float32Array, tokens: readonly number[]): void {
  const had = tokens.map((token) => row[token]!)
  for (const token of tokens) row[token] = -Infinity
  if (row.some((logit) => logit > -Infinity)) return
  for (const [i, token] of tokens.entries()) row[token] = had[i]!
}

/** After so many output tokens no end token may come. */
export function isEndless({ ignoreEos, minTokens }: Sampling, produced: number): boolean {
  return ignoreEos || produced < minTokens
}

/** OpenAI's word for what cannot come: JSON has no infinity. */
const LEAST_LOGPROB = -9999

/** Log-probability of the chosen token and of the `count` likeliest, best first. */
export function logprobsOf(row: Float32Array, token: number, count: number): TokenLogprob {
  const highest = row[argmax(row)]!
  let sum = 0
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i]! - highest)
  const normalizer = highest + Math.log(sum)
  const top: number[] = []
  for (let i = 0; i < row.length; i++) {
    if (top.length === count && row[i]! <= row[top[count - 1]!]!) continue
    let at = top.length
    while (at > 0 && row[top[at - 1]!]! < row[i]!) at--
    top.splice(at, 0, i)
    if (top.length > count) top.pop()
  }
  const of = (id: number) => ({ token: id, logprob: Math.max(LEAST_LOGPROB, row[id]! - normalizer) })
  return { ...of(token), top: top.map(of) }
}
