/** Advice on a thread of its own, for no more than a share of one core: it rests after each play for as long as that takes. */
import { Worker } from "node:worker_threads"
import { moduleBeside } from "../beside.ts"
import type { Advice, AdviceOptions } from "./advice.ts"
import type { RingCopy } from "./arrival-ring.ts"
import type { FleetSetup } from "./play.ts"

/** Plain data. */
export interface Question {
  setup: FleetSetup
  copy: RingCopy
  nowUs: number
  options: AdviceOptions
  /** Share of one core. */
  share: number
}

export type Answer = { advice: Advice; busyMs: number } | { failure: string }

export interface AdviceThread {
  /** One at a time. Rejects where the thread fails; the next question begins another. */
  ask(question: Question): Promise<Extract<Answer, { advice: Advice }>>
  close(): Promise<void>
}

/** Plays of a thousand requests stay far below. */
const MOST_HEAP_MIB = 1024

export class WorkerThread implements AdviceThread {
  #worker: Worker | null = null

  async ask(question: Question): Promise<Extract<Answer, { advice: Advice }>> {
    const worker = (this.#worker ??= this.#start())
    const answer = await new Promise<Answer>((resolve) => {
      const over = (found: Answer) => {
        worker.off("message", over).off("error", onError).off("exit", onExit)
        resolve(found)
      }
      const onError = (error: Error) => over({ failure: error.message })
      const onExit = () => over({ failure: "its thread has ended" })
      worker.on("message", over).on("error", onError).on("exit", onExit)
      worker.postMessage(question, [question.copy.rows.buffer as ArrayBuffer])
    })
    if ("advice" in answer) return answer
    throw new Error(answer.failure)
  }

  async close(): Promise<void> {
    const worker = this.#worker
    this.#worker = null
    await worker?.terminate()
  }

  #start(): Worker {
    const worker = new Worker(moduleBeside(import.meta.url, "thread-worker"), {
      resourceLimits: { maxOldGenerationSizeMb: MOST_HEAP_MIB },
    })
    const forget = () => {
      if (this.#worker === worker) this.#worker = null
    }
    worker.on("error", forget).on("exit", forget)
    // A server that has ended does not wait for its advice.
    worker.unref()
    return worker
  }
}
