/** Requests between the API and what serves, for the metrics: what they ask for, how long their answers are, and since when
 * the oldest of them waits for its first token. */
import type { AskedAndGot } from "../telemetry/vllm-metrics.ts"
import type { AnswerSink } from "../text/answer.ts"

type Asking = { readonly maxTokens: number | null; readonly arrivalMs: number }

export class AskedWatch {
  /** Answers without a token, in the order in which they came: their arrival, ms. */
  readonly #waiting = new Map<AnswerSink, number>()
  readonly #ended: (asked: AskedAndGot) => void
  readonly #nowMs: () => number

  /** `ended`: told of each request of which every answer has ended, and at least one by itself. */
  constructor(ended: (asked: AskedAndGot) => void, nowMs = () => performance.now()) {
    this.#ended = ended
    this.#nowMs = nowMs
  }

  /** How long the request has waited that has waited longest for its first token, ms; 0 where none waits. */
  get oldestMs(): number {
    for (const arrivalMs of this.#waiting.values()) return Math.max(0, this.#nowMs() - arrivalMs)
    return 0
  }

  /** Lets `serve` answer the requests into these sinks, as `Intake.start` does. */
  async start(
    requests: readonly Asking[],
    sinks: readonly AnswerSink[],
    serve: (sinks: readonly AnswerSink[]) => Promise<void>,
  ): Promise<void> {
    const n = sinks.length / requests.length
    const watched = requests.flatMap((request, at) => this.#watch(request, sinks.slice(at * n, (at + 1) * n)))
    try {
      await serve(watched)
    } catch (error) {
      for (const sink of watched) this.#waiting.delete(sink)
      throw error
    }
  }

  #watch({ maxTokens, arrivalMs }: Asking, sinks: readonly AnswerSink[]): AnswerSink[] {
    let left = sinks.length
    let longestTokens = -1
    return sinks.map((sink) => {
      const watched: AnswerSink = {
        delta: (delta) => {
          this.#waiting.delete(watched)
          sink.delta(delta)
        },
        end: (end) => {
          this.#waiting.delete(watched)
          if (end.kind === "finished") longestTokens = Math.max(longestTokens, end.outcome.outputTokens)
          if (--left === 0 && longestTokens >= 0) this.#ended({ n: sinks.length, maxTokens, longestTokens })
          sink.end(end)
        },
      }
      this.#waiting.set(watched, arrivalMs)
      return watched
    })
  }
}
