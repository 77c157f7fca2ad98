/** What is made of a play: counts, errors by kind, and how long streams stood still after each fault. */
import { quantile } from "simple-statistics"
import { FAULT_KINDS, FAULT_WORDS } from "./faults.ts"
import type { Inflicted, Played, Stream, Verdict } from "./play.ts"

/** A stream that stands still for longer after a fault was held up by it; others did not notice. */
const HELD_UP_MS = 250
/** Tokens that were written before a fault arrive within this time. */
const ON_THE_WAY_MS = 100

export interface Recovery {
  kind: string
  faults: number
  /** Streams that had begun and not ended at that moment. */
  underWay: number
  heldUp: number
  /** From the fault until those held up went on, ms; null: none was. */
  p50Ms: number | null
  p99Ms: number | null
  worstMs: number | null
  /** Until all replicas were ready again, ms. */
  backP50Ms: number | null
}

export interface Findings {
  streams: number
  verdicts: Record<Verdict, number>
  /** Of streams whose gateway lived. */
  tokensCompared: number
  errors: Record<string, number>
  /** Share of the streams that ended well whose tokens all came when due, by the clients' clock and by the server's word. */
  attained: number | null
  attainedByServer: number | null
  recovery: Recovery[]
  /** The first few. */
  differing: { prompt: string; end: string; tokens: number; fromPlace: number; got: string; wanted: string }[]
}

export function findingsOf({ streams, faults }: Played, textOf: ReadonlyMap<string, string>): Findings {
  const of = (verdict: Verdict) => streams.filter((stream) => stream.verdict === verdict)
  const verdicts = {
    ...{ same: of("same").length, differs: of("differs").length, hung: of("hung").length },
    ...{ gateway: of("gateway").length, error: of("error").length },
  }
  const errors: Record<string, number> = {}
  for (const { end, message } of of("error")) {
    const kind = `${end}: ${message.slice(0, 160)}`
    errors[kind] = (errors[kind] ?? 0) + 1
  }
  const whole = of("same")
  const said = whole.filter(({ kept }) => kept !== null)
  const living = streams.filter(({ verdict }) => verdict !== "gateway")
  return {
    streams: streams.length,
    verdicts,
    tokensCompared: living.reduce((sum, { tokens }) => sum + tokens, 0),
    errors,
    attained: shareOf(whole, ({ inTime }) => inTime),
    attainedByServer: shareOf(said, ({ kept }) => kept === true),
    recovery: FAULT_KINDS.flatMap((kind) => recoveryOf(kind, faults, streams)),
    differing: of("differs")
      .slice(0, 20)
      .map((stream) => differenceOf(stream, textOf.get(stream.prompt) ?? "")),
  }
}

function shareOf<T>(all: readonly T[], which: (one: T) => boolean): number | null {
  return all.length === 0 ? null : all.filter(which).length / all.length
}

function recoveryOf(
  kind: Inflicted["kind"],
  all: readonly Inflicted[],
  streams: readonly Stream[],
): Recovery[] {
  const faults = all.filter((fault) => fault.kind === kind)
  if (faults.length === 0) return []
  const waits = faults.flatMap(({ doneMs }) =>
    streams
      .filter(({ verdict }) => verdict !== "gateway")
      .flatMap((stream) => waitAfter(stream, doneMs) ?? []),
  )
  const held = waits.filter((ms) => ms > HELD_UP_MS)
  const at = (of: readonly number[], share: number) =>
    of.length === 0 ? null : Math.round(quantile([...of], share))
  const back = faults.flatMap(({ backMs }) => backMs ?? [])
  return [
    {
      ...{ kind: FAULT_WORDS[kind], faults: faults.length, underWay: waits.length, heldUp: held.length },
      ...{ p50Ms: at(held, 0.5), p99Ms: at(held, 0.99), worstMs: at(held, 1), backP50Ms: at(back, 0.5) },
    },
  ]
}

/** How long it stood still after a fault, ms: until the end of its longest gap that began before or soon after. What was
 * written before the fault still arrives. null: it was not under way then. */
function waitAfter({ startMs, tokenMs }: Stream, faultMs: number): number | null {
  const times = [startMs, ...tokenMs]
  let [longest, untilMs] = [-1, 0]
  for (let i = 1; i < times.length; i++) {
    const fromMs = Math.max(times[i - 1]!, faultMs)
    if (times[i]! <= faultMs || times[i - 1]! > faultMs + ON_THE_WAY_MS) continue
    if (times[i]! - fromMs > longest) [longest, untilMs] = [times[i]! - fromMs, times[i]!]
  }
  return startMs > faultMs || longest < 0 ? null : untilMs - faultMs
}

function differenceOf({ prompt, end, tokens, text }: Stream, wanted: string): Findings["differing"][number] {
  let place = 0
  while (place < text.length && text[place] === wanted[place]) place++
  const some = (of: string) => of.slice(Math.max(0, place - 10), place + 30)
  return { prompt, end, tokens, fromPlace: place, got: some(text), wanted: some(wanted) }
}

/** For docs, as they stand. */
export function tableOf(
  name: string,
  { streams, verdicts, tokensCompared, recovery, ...rest }: Findings,
): string {
  const share = (of: number | null) => (of === null ? "–" : `${(100 * of).toFixed(1)}%`)
  const cell = (ms: number | null) => (ms === null ? "–" : String(ms))
  const errors = Object.entries(rest.errors).map(([kind, count]) => `${count} × ${kind}`)
  return [
    `**${name}**: ${streams} streams, ${tokensCompared} tokens compared; ${verdicts.differs} streams with tokens lost, repeated or ` +
      `others, ${verdicts.hung} hung, ${verdicts.error} ended with an error, ${verdicts.gateway} lost with their gateway (right up to ` +
      `there); SLOs kept by ${share(rest.attained)} of those that ended well (${share(rest.attainedByServer)} by the server's word).` +
      (errors.length > 0 ? ` Errors: ${errors.join("; ")}.` : ""),
    "",
    "| fault | faults | streams under way | held up | until the next token, p50, ms | p99 | worst | all replicas ready again, p50, ms |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ...recovery.map(
      (one) =>
        `| ${one.kind} | ${one.faults} | ${one.underWay} | ${one.heldUp} | ${cell(one.p50Ms)} | ${cell(one.p99Ms)} | ` +
        `${cell(one.worstMs)} | ${cell(one.backP50Ms)} |`,
    ),
    "",
  ].join("\n")
}
