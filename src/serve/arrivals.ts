/** Notes every request as it comes and as it ends, wherever it is served, for the scaling signal: between the API and what
 * serves, since only there all of it passes. */
import { UserError } from "../errors.ts"
import type { Arriving, Ending } from "../scale/arrival.ts"
import { ArrivalRing } from "../scale/arrival-ring.ts"
import type { AnswerEnd, AnswerSink } from "../text/answer.ts"
import type { GenerationRequest } from "./intake.ts"
import { sessionNumber } from "./prefix.ts"

export class ArrivalRecorder {
  readonly ring: ArrivalRing
  readonly #nowMs: () => number

  constructor(nowMs = () => performance.now(), ring = new ArrivalRing(nowMs() * 1000)) {
    this.#nowMs = nowMs
    this.ring = ring
  }

  get nowUs(): number {
    return this.#nowMs() * 1000
  }

  /** Lets `serve` answer the requests into these sinks, as `Intake.start` does. Each sink is an arrival. */
  async start(
    requests: readonly GenerationRequest[],
    sinks: readonly AnswerSink[],
    serve: (sinks: readonly AnswerSink[]) => Promise<void>,
  ): Promise<void> {
    const each = sinks.length / requests.length
    const places = sinks.map((_, at) => this.ring.arrived(arriving(requests[Math.floor(at / each)]!)))
    const watched = sinks.map(
      (sink, at): AnswerSink => ({
        delta: (delta) => sink.delta(delta),
        end: (end) => {
          this.ring.ended(places[at]!, this.#ending(end))
          sink.end(end)
        },
      }),
    )
    try {
      await serve(watched)
    } catch (error) {
      for (const place of places) this.ring.ended(place, { end: refusalOf(error), endUs: this.nowUs })
      throw error
    }
  }

  #ending(end: AnswerEnd): Ending {
    const endUs = this.nowUs
    if (end.kind === "cancelled") return { end: "cancelled", endUs }
    if (end.kind === "failed") return { end: refusalOf(end.error), endUs }
    const { promptTokens, outputTokens, cachedTokens, attained, stages } = end.outcome
    const thinkingTokens = stages.find(({ stage }) => stage === "thinking")?.tokens ?? 0
    return { end: "done", endUs, promptTokens, outputTokens, thinkingTokens, cachedTokens, attained }
  }
}

function arriving({ slo: resolved, session, tenant, maxTokens, arrivalMs }: GenerationRequest): Arriving {
  return {
    atUs: arrivalMs * 1000,
    app: resolved.class.app,
    session: session === null ? -1 : sessionNumber(`${tenant}\n${session}`),
    maxOutputTokens: maxTokens ?? 0,
    ...{
      slo: resolved.slo,
      tier: resolved.tier,
      worth: resolved.class.worth ?? 1,
      thinking: resolved.thinking,
    },
  }
}

/** A fleet that is too small or broken refuses; what its client did wrong no fleet would serve. */
function refusalOf(error: unknown): "refused" | "failed" | "void" {
  if (!(error instanceof UserError)) return "failed"
  if (error.code === "queue_too_small") return "void"
  if (error.status === 429 || error.status === 503) return "refused"
  return error.status < 500 ? "void" : "failed"
}
