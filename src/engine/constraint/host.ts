/** The near side of a grammar host: its thread, what it knows, and its end when a call takes too long. */
import { Worker } from "node:worker_threads"
import { moduleBeside } from "../../beside.ts"
import type { RequestId } from "../../core/protocol.ts"
import type { HostAnswer, HostCall, HostData, HostMessage } from "./messages.ts"
import type { Vocabulary } from "./vocabulary.ts"

/** A call took too long, or the library gave up: it is compiled without exceptions, and is no good after one. The host
 * is gone. */
export class HostFailure extends Error {
  readonly late: boolean
  /** Which of the call's requests it was at. */
  readonly place: number

  constructor(message: string, late: boolean, place: number) {
    super(message)
    this.late = late
    this.place = place
  }
}

/** Memory of one host at which a grammar is too large for it. A compiled schema takes a few megabytes. */
const MOST_MEMORY_BYTES = 512 << 20
/** A call that gets on with its requests may take so many times its limit. */
const MOST_CHANCES = 4
/** A machine on which a host takes longer to start cannot be helped. */
const START_MS = 60_000

export class GrammarHost {
  readonly #worker: Worker
  readonly #progress = new SharedArrayBuffer(4)
  /** Grammars compiled there, the one last used last. */
  readonly grammars = new Set<string>()
  /** Output tokens that it has seen, by request. */
  readonly seen = new Map<RequestId, number>()
  #drop: HostMessage["drop"] = { grammars: [], requests: [] }
  #answer: ((answer: HostAnswer) => void) | null = null
  #alive = true

  /** Resolves when the library has read the vocabulary: that takes it a tenth of a second and more, and must not count
   * as a grammar's compilation. */
  static async start(vocabulary: Vocabulary): Promise<GrammarHost> {
    const host = new GrammarHost(vocabulary)
    await host.#next(START_MS)
    return host
  }

  private constructor(vocabulary: Vocabulary) {
    const workerData: HostData = { vocabulary, progress: this.#progress }
    this.#worker = new Worker(moduleBeside(import.meta.url, "worker"), {
      workerData,
      stdout: true,
      stderr: true,
    })
    // It must not keep a process alive that has ended otherwise.
    this.#worker.unref()
    this.#worker.on("message", (answer: HostAnswer) => this.#answered(answer))
    this.#worker.on("error", (error: Error) => this.#died(error.message))
    this.#worker.on("exit", () => this.#died("it ended"))
  }

  get alive(): boolean {
    return this.#alive
  }

  /** Compiles a grammar. Throws HostFailure. */
  async compile(grammar: string, limitMs: number): Promise<void> {
    const answer = await this.#call({ type: "compile", grammar }, limitMs)
    if ("memoryBytes" in answer && answer.memoryBytes > MOST_MEMORY_BYTES) {
      this.close()
      throw new HostFailure("it takes too much memory", false, 0)
    }
    this.grammars.add(grammar)
  }

  async follow(
    call: Omit<HostCall & { type: "follow" }, "type">,
    limitMs: number,
  ): Promise<{ masks: Int32Array; counts: number[] }> {
    const answer = await this.#call({ type: "follow", ...call }, limitMs)
    if (!("masks" in answer)) throw new Error("a grammar host answered something else")
    for (const { id, tokens } of call.requests) this.seen.set(id, (this.seen.get(id) ?? 0) + tokens.length)
    return answer
  }

  dropGrammar(grammar: string): void {
    if (this.grammars.delete(grammar)) this.#drop.grammars.push(grammar)
  }

  forget(id: RequestId): void {
    if (this.seen.delete(id)) this.#drop.requests.push(id)
  }

  close(): void {
    this.#alive = false
    void this.#worker.terminate()
  }

  /** One call at a time: callers see to that. */
  #call(call: HostCall, limitMs: number): Promise<HostAnswer & { ok: true }> {
    if (!this.#alive) return Promise.reject(new Error("the grammar host has ended"))
    if (this.#answer) return Promise.reject(new Error("a grammar host was called while it was busy"))
    const drop = this.#drop
    this.#drop = { grammars: [], requests: [] }
    Atomics.store(new Int32Array(this.#progress), 0, 0)
    this.#worker.postMessage({ ...call, drop } satisfies HostMessage)
    return this.#next(limitMs)
  }

  /** The next answer. */
  #next(limitMs: number): Promise<HostAnswer & { ok: true }> {
    return new Promise((resolve, reject) => {
      const at = () => Atomics.load(new Int32Array(this.#progress), 0)
      const fail = (message: string, late: boolean) => {
        this.#answer = null
        this.close()
        reject(new HostFailure(message, late, at()))
      }
      let [place, chances] = [at(), MOST_CHANCES]
      const late = () => {
        // Many requests on a busy machine are no request that hangs.
        if (at() === place || --chances === 0) fail("a grammar host took too long", true)
        else {
          place = at()
          timer = setTimeout(late, limitMs)
        }
      }
      let timer = setTimeout(late, limitMs)
      this.#answer = (answer) => {
        clearTimeout(timer)
        this.#answer = null
        if (answer.ok) resolve(answer)
        else fail(answer.message, false)
      }
    })
  }

  #answered(answer: HostAnswer): void {
    this.#answer?.(answer)
  }

  #died(why: string): void {
    this.#alive = false
    this.#answer?.({ ok: false, message: `the grammar host has ended: ${why}` })
  }
}
