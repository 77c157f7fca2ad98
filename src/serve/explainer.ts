/** Keeps of every answer how it went and why, and says it in one line of the log: between the API and what serves, since only
 * there all of it passes. */
import { UserError } from "../errors.ts"
import type { Journal } from "../explain/journal.ts"
import { logLine } from "../explain/log-line.ts"
import { type AnswerRecord, isMissed } from "../explain/record.ts"
import type { AnswerEnd, AnswerSink } from "../text/answer.ts"
import type { GenerationRequest } from "./intake.ts"

/** One line at level info. */
export type LogLine = (values: Record<string, unknown>, message: string) => void

/** Where the requests of an exchange come from. */
export interface Exchanged {
  /** As its response's header x-request-id has it. */
  id: string
  log: LogLine
  /** What spans say of it, and the headers that name its trace. */
  operation: "chat" | "text_completion" | "embeddings"
  model: string
  headers: Readonly<Record<string, string | string[] | undefined>>
}

/** Takes requests that have ended, with all their answers. */
export type TraceSink = (records: readonly AnswerRecord[], exchanged: Exchanged) => void

/** What ended: all else is known before. */
type Ended = Pick<AnswerRecord, "end" | "error" | "outcome" | "expectedWaitMs">

export class Explainer {
  readonly journal: Journal
  readonly #requestsPerSec: () => number
  #traces: TraceSink | null = null

  /** `requestsPerSec`: that ended, of late. */
  constructor(requestsPerSec: () => number, journal: Journal) {
    this.journal = journal
    this.#requestsPerSec = requestsPerSec
  }

  /** Requests are told to it from now on. */
  tracedBy(traces: TraceSink): void {
    this.#traces = traces
  }

  /** Lets `serve` answer the requests into these sinks, as `Intake.start` does. */
  async start(
    exchanged: Exchanged,
    requests: readonly GenerationRequest[],
    sinks: readonly AnswerSink[],
    serve: (sinks: readonly AnswerSink[]) => Promise<void>,
  ): Promise<void> {
    const answers = new Answers(this, exchanged, requests, sinks.length)
    const watched = sinks.map(
      (sink, choice): AnswerSink => ({
        delta: (delta) => sink.delta(delta),
        end: (end) => {
          answers.ended(choice, endedAs(end))
          sink.end(end)
        },
      }),
    )
    try {
      await serve(watched)
    } catch (error) {
      answers.refused(error)
      throw error
    }
  }

  /** All answers of an exchange. */
  ended(records: readonly AnswerRecord[], exchanged: Exchanged): void {
    this.add(records, exchanged.log)
    this.#traces?.(records, exchanged)
  }

  /** Of a request, all its answers: they are kept, and told in one line. */
  add(records: readonly AnswerRecord[], log: LogLine): void {
    const ratePerSec = records.some(isMissed) ? this.#requestsPerSec() : 0
    for (const record of records) this.journal.add({ ...record, ratePerSec })
    log(logLine(records), "request")
  }
}

/** The answers of one exchange, until the last has ended. */
class Answers {
  readonly #explainer: Explainer
  readonly #exchanged: Exchanged
  readonly #requests: readonly GenerationRequest[]
  readonly #records: (AnswerRecord | null)[]
  #left: number

  constructor(
    explainer: Explainer,
    exchanged: Exchanged,
    requests: readonly GenerationRequest[],
    choices: number,
  ) {
    this.#explainer = explainer
    this.#exchanged = exchanged
    this.#requests = requests
    this.#records = Array.from({ length: choices }, () => null)
    this.#left = choices
  }

  ended(choice: number, ended: Ended): void {
    if (this.#records[choice] !== null) return
    this.#records[choice] = this.#recordOf(choice, ended)
    if (--this.#left > 0) return
    // The driver tells of ends while its next step is about to begin.
    setImmediate(() => this.#explainer.ended(this.#records as AnswerRecord[], this.#exchanged))
  }

  refused(error: unknown): void {
    for (const choice of this.#records.keys()) this.ended(choice, failedBy(error, "refused"))
  }

  #recordOf(choice: number, ended: Ended): AnswerRecord {
    const choices = this.#records.length
    const request = this.#requests[Math.floor((choice * this.#requests.length) / choices)]!
    const { tenant, slo, arrivalMs } = request
    const nowMs = Date.now()
    return {
      ...{ id: this.#exchanged.id, choice, choices, tenant, className: slo.class.name },
      ...{ tier: slo.tier, slo: slo.slo, thinking: slo.thinking },
      ...{ arrivedMs: nowMs - (performance.now() - arrivalMs), endedMs: nowMs, ratePerSec: 0 },
      ...ended,
    }
  }
}

function endedAs(end: AnswerEnd): Ended {
  if (end.kind === "failed") return failedBy(end.error, "failed")
  const none = { error: null, expectedWaitMs: null }
  if (end.kind === "cancelled") return { end: "cancelled", outcome: null, ...none }
  return { end: end.reason, outcome: end.outcome, ...none }
}

function failedBy(error: unknown, end: "failed" | "refused"): Ended {
  const told = error instanceof UserError ? error : null
  const { code = null, message = "an error of the server", retryMs = null, status = 500 } = told ?? {}
  const isWrong = status < 500 && status !== 429
  const ended = { error: { code: code ?? "server_error", message }, outcome: null, expectedWaitMs: retryMs }
  return { ...ended, end: isWrong ? "invalid" : end }
}
