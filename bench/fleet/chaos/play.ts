/** Clients that stream one answer after another while faults happen, and what each of them saw. */
import { setTimeout as sleep } from "node:timers/promises"
import { Random } from "../../../src/random.ts"
import type { Fault, FaultKind } from "./faults.ts"
import type { Stage } from "./stage.ts"
import { type Followed, follow, inTime } from "./stream.ts"
import type { Transcript } from "./transcripts.ts"

export interface Played {
  streams: Stream[]
  faults: Inflicted[]
}

export interface Inflicted extends Fault {
  /** performance.now(). */
  doneMs: number
  /** Until every replica was ready again, ms; null: none was seen to be out, or it was not back at the end. */
  backMs: number | null
}

/** As it is judged. */
export type Verdict =
  /** Every token as it must be, to the end. */
  | "same"
  /** Not what it must be: tokens lost, repeated or others. */
  | "differs"
  | "hung"
  /** Its gateway died; what came until then was right. */
  | "gateway"
  /** It ended with an error, which says so; what came until then was right. */
  | "error"

export interface Stream extends Followed {
  client: number
  prompt: string
  verdict: Verdict
  inTime: boolean
}

export interface PlayOptions {
  seed: number
  clients: number
  lengthMs: number
  transcripts: readonly Transcript[]
  hungMs?: number
  /** Now and then. */
  tell?: (message: string) => void
}

/** A replica is not ready for a while after these, and is found out so soon. */
const PUTS_OUT: readonly FaultKind[] = ["kill", "stop", "cut", "corrupt"]
const FOUND_OUT_MS = 5000
/** Between two looks at whether replicas are ready, ms. */
const LOOK_MS = 200
const OVERLOADED_MS = 500
/** A connection's end is heard a little before or after its process's. */
const DEATH_SLACK_MS = 1000

export async function play(stage: Stage, faults: readonly Fault[], options: PlayOptions): Promise<Played> {
  const { clients, lengthMs, tell = () => {} } = options
  const startMs = performance.now()
  const over = { now: false }
  const streams: Stream[] = []
  const load = Array.from({ length: clients }, (_, client) => beClient(client, stage, options, streams, over))
  const done: Inflicted[] = []
  for (const fault of faults) {
    await sleep(Math.max(0, startMs + fault.atMs - performance.now()))
    await othersReady(stage)
    const inflicted: Inflicted = { ...fault, doneMs: performance.now(), backMs: null }
    done.push(inflicted)
    await stage.inflict(fault)
    if (PUTS_OUT.includes(fault.kind)) void watchReturn(stage, inflicted, over)
    tell(
      `${fault.kind} after ${Math.round((inflicted.doneMs - startMs) / 1000)} s; ${streams.length} streams over`,
    )
  }
  await sleep(Math.max(0, startMs + lengthMs - performance.now()))
  await stage.settled()
  over.now = true
  await Promise.all(load)
  return { streams, faults: done }
}

/** All but one may be out at a time: what is left has to be somewhere. */
async function othersReady(stage: Stage): Promise<void> {
  for (;;) {
    const ready = await stage.ready()
    if (ready.filter(Boolean).length >= Math.max(2, ready.length - 1)) return
    await sleep(LOOK_MS)
  }
}

async function watchReturn(stage: Stage, inflicted: Inflicted, over: { now: boolean }): Promise<void> {
  let out = false
  while (!over.now && (out || performance.now() < inflicted.doneMs + FOUND_OUT_MS)) {
    await sleep(LOOK_MS)
    const ready = await stage.ready()
    const all = ready.length > 0 && ready.every(Boolean)
    if (!all) out = true
    else if (out) {
      inflicted.backMs = performance.now() - inflicted.doneMs
      return
    }
  }
}

async function beClient(
  client: number,
  stage: Stage,
  { seed, transcripts, hungMs }: PlayOptions,
  streams: Stream[],
  over: { now: boolean },
): Promise<void> {
  const random = new Random(`${seed} ${client}`)
  const { gateways } = stage
  let at = client % gateways.length
  while (!over.now) {
    const transcript = transcripts[random.below(transcripts.length)]!
    const gateway = gateways[at]!
    const seen = await follow(gateway.url, transcript, hungMs === undefined ? {} : { hungMs })
    // A gateway that is not there takes no request: another one does.
    if (seen.end === "cut" && seen.tokens === 0 && /ECONNREFUSED/.test(seen.message)) {
      at = (at + 1) % gateways.length
      await sleep(LOOK_MS)
      continue
    }
    const verdict = judge(seen, transcript, gateway.diedMs)
    streams.push({ ...seen, client, prompt: transcript.prompt, verdict, inTime: inTime(seen) })
    if (verdict === "gateway") at = (at + 1) % gateways.length
    if (verdict === "error") await sleep(seen.retryMs ?? OVERLOADED_MS)
  }
}

export function judge(seen: Followed, transcript: Transcript, gatewayDiedMs: readonly number[]): Verdict {
  const whole = seen.end === "ok"
  const right = whole
    ? seen.text === transcript.text && seen.tokens === transcript.tokens
    : transcript.text.startsWith(seen.text)
  if (!right) return "differs"
  if (whole) return "same"
  if (seen.end === "hung") return "hung"
  const died = gatewayDiedMs.some(
    (ms) => ms > seen.startMs - DEATH_SLACK_MS && ms < seen.endMs + DEATH_SLACK_MS,
  )
  return seen.end === "cut" && died ? "gateway" : "error"
}
