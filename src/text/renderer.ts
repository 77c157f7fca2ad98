/** The chat template on another thread, one prompt at a time, within a time and a memory. */
import { Worker } from "node:worker_threads"
import { moduleBeside } from "../beside.ts"
import type { ControlTokens } from "../engine/control-tokens.ts"
import { UserError, userError } from "../errors.ts"
import type { ChatPrompt, PromptText, TemplateSource } from "./template.ts"

export interface RenderJob {
  prompt: ChatPrompt
  parseSpecial: boolean
}

export type RenderAnswer =
  | { prompt: PromptText }
  | { failure: { message: string; status: number; code: string | null; param: string | null } }

export interface RendererOptions {
  /** Longest time of one prompt, ms. */
  timeoutMs?: number
}

/** The slowest honest prompt, 4096 messages, takes half a second. */
const TIMEOUT_MS = 10_000
const MOST_HEAP_MIB = 1024
/** A thread that has had nothing to do for so long goes, and its memory with it. */
const IDLE_MS = 30_000

export class Renderer {
  readonly #data: { model: TemplateSource; controls: ControlTokens["all"] }
  readonly #timeoutMs: number
  #worker: Worker | null = null
  #idle: NodeJS.Timeout | undefined

  constructor(model: TemplateSource, controls: ControlTokens, options: RendererOptions = {}) {
    const { chatTemplate, bosText, eosText } = model
    this.#data = { model: { chatTemplate, bosText, eosText }, controls: controls.all }
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS
  }

  /** As `ChatTemplate.render`. A prompt that takes the template too long, or too much memory, is a 400. The next call
   * comes after the answer to this one. */
  async render(prompt: ChatPrompt, parseSpecial: boolean): Promise<PromptText> {
    const answer = await this.#ask({ prompt, parseSpecial })
    if ("prompt" in answer) return answer.prompt
    const { message, ...options } = answer.failure
    throw new UserError(message, options)
  }

  /** Ends the thread; the next prompt would begin another. */
  async close(): Promise<void> {
    clearTimeout(this.#idle)
    const worker = this.#worker
    this.#worker = null
    await worker?.terminate()
  }

  #ask(job: RenderJob): Promise<RenderAnswer> {
    clearTimeout(this.#idle)
    const worker = (this.#worker ??= this.#start())
    return new Promise((resolve) => {
      const end = (answer: RenderAnswer) => {
        clearTimeout(timer)
        worker.off("message", end).off("error", onError).off("exit", onExit)
        this.#idle = setTimeout(() => void this.close(), IDLE_MS).unref()
        resolve(answer)
      }
      const fail = (detail: string) => {
        this.#worker = null
        void worker.terminate()
        end({ failure: userError("chat_template_error", { detail }, { param: "messages" }) })
      }
      const onError = (error: Error) => fail(`they are too much for it (${error.message}).`)
      const onExit = () => fail("the server is closing.")
      const tooSlow = `they take it longer than ${this.#timeoutMs / 1000} s; send fewer or shorter ones.`
      const timer = setTimeout(() => fail(tooSlow), this.#timeoutMs)
      worker.on("message", end).on("error", onError).on("exit", onExit)
      worker.postMessage(job)
    })
  }

  #start(): Worker {
    const worker = new Worker(moduleBeside(import.meta.url, "render-worker"), {
      workerData: this.#data,
      resourceLimits: { maxOldGenerationSizeMb: MOST_HEAP_MIB },
    })
    const forget = () => {
      if (this.#worker === worker) this.#worker = null
    }
    worker.on("error", forget).on("exit", forget)
    worker.unref()
    return worker
  }
}
