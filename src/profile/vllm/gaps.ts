/** From when tokens came to steps and how long they took. */
import { median } from "simple-statistics"
import { shapeOf } from "../../core/cost.ts"
import { LAYOUT } from "../../fit/guess.ts"
import type { SeenStep } from "../../fit/seen-steps.ts"
import type { Round, StreamTimes } from "./rounds.ts"

/** So many steps of decodes are taken together: what the network delays moves the edges only. */
const TOGETHER = 4
/** A gap so much longer than the usual one before a prompt's last: the prompt was cut into several steps. */
const CUT = 1.7

/** Steps of a round; empty where too little of it overlapped. */
export function stepsOf(round: Round, times: readonly StreamTimes[]): SeenStep[] {
  return round.kind === "decodes" ? decodeSteps(round, times) : promptSteps(round, times)
}

/** While all of them decode. */
function decodeSteps({ streams }: Round, times: readonly StreamTimes[]): SeenStep[] {
  if (times.some(({ tokens }) => tokens.length < 3)) return []
  const fromUs = Math.max(...times.map(({ tokens }) => tokens[1]!.atUs))
  const toUs = Math.min(...times.map(({ tokens }) => tokens.at(-1)!.atUs))
  const pilot = times[0]!.tokens
  const found: SeenStep[] = []
  let done = pilot[0]!.count
  let [fromStep, stepUs, steps] = [0, -1, 0]
  for (const { count, atUs } of pilot.slice(1)) {
    done += count
    if (atUs < fromUs || atUs > toUs) continue
    if (stepUs >= 0) steps += count
    if (stepUs >= 0 && steps < TOGETHER) continue
    if (stepUs >= 0) {
      const computed = streams[0]!.promptTokens + Math.round((fromStep + done) / 2) - 1
      found.push({ shape: shapeFor(streams.length, computed, 0), us: (atUs - stepUs) / steps })
    }
    ;[fromStep, stepUs, steps] = [done, atUs, 0]
  }
  return found
}

/** The gaps that end with the first token of a prompt that came while others decode. */
function promptSteps({ streams }: Round, times: readonly StreamTimes[]): SeenStep[] {
  const pilot = times[0]!.tokens
  const gaps = pilot.slice(1).map(({ atUs }, i) => atUs - pilot[i]!.atUs)
  if (gaps.length < 3) return []
  const usualUs = median(gaps)
  const beside = streams.filter(({ after }) => after === 0).length
  return streams.flatMap(({ after, promptTokens }, i) => {
    const firstUs = times[i]?.tokens[0]?.atUs
    if (after === 0 || firstUs === undefined) return []
    const at = nearest(pilot, firstUs)
    // The others must have begun, and still go on.
    const decoding = times
      .slice(0, beside)
      .every(
        ({ tokens }) =>
          tokens.length > 1 && tokens[0]!.atUs < firstUs && tokens.at(-1)!.atUs >= pilot[at]!.atUs,
      )
    if (!decoding || at < 2 || pilot[at]!.count > 1) return []
    if (gaps[at - 2]! > CUT * usualUs && gaps[at - 2]! > gaps[at - 1]! / 2) return []
    return [{ shape: shapeFor(beside, streams[0]!.promptTokens + at, promptTokens), us: gaps[at - 1]! }]
  })
}

function nearest(tokens: StreamTimes["tokens"], us: number): number {
  let at = 0
  for (let i = 1; i < tokens.length; i++)
    if (Math.abs(tokens[i]!.atUs - us) < Math.abs(tokens[at]!.atUs - us)) at = i
  return at
}

/** `count` decodes after `computed` tokens each, beside a prompt of `chunk`. */
function shapeFor(count: number, computed: number, chunk: number) {
  const decode = { position: computed, tokens: 1, sample: true, draft: 0 }
  const prompt = { position: 0, tokens: chunk, sample: true, draft: 0 }
  return shapeOf([...Array.from({ length: count }, () => decode), ...(chunk > 0 ? [prompt] : [])], LAYOUT)
}
