/** The grammars that answers are held to: compiled off the event loop, and followed beside the model's step.
 *
 * Two hosts, each a thread with a copy of the library: one says which tokens may come next, the other compiles, and
 * when it has compiled a grammar (and those in use that it lacks) it is told how far every request has come, and
 * the two change places. So no step ever waits for a compilation, and a thread that takes too long can be
 * ended, whatever it does: nothing else could stop it. */
import type { RequestId } from "../../core/protocol.ts"
import { type UserError, userError } from "../../errors.ts"
import type { GrammarHolds, Tokenizer } from "../port.ts"
import type { OpenRequest } from "../request-table.ts"
import { GrammarHost, HostFailure } from "./host.ts"
import type { Followed } from "./messages.ts"
import { AnswerPath } from "./path.ts"
import { StillMasks } from "./still-masks.ts"
import { type Vocabulary, vocabularyOf } from "./vocabulary.ts"

export interface ConstraintLimits {
  /** Longest time that compiling one grammar may take, ms. */
  compileMs: number
  /** Longest time without getting on to the next request of a step, ms. A step may take four times as long. */
  followMs: number
  /** Different grammars that requests may hold at one time. */
  held: number
  /** Compiled grammars kept, those held included. */
  kept: number
  /** Compilations that may wait. */
  queued: number
}

export const CONSTRAINT_LIMITS: ConstraintLimits = {
  compileMs: 5_000,
  followMs: 2_000,
  held: 160,
  kept: 192,
  queued: 40,
}

/** So many requests may be found that cannot be followed while one grammar is compiled. */
const MOST_CHANCES = 4
/** How long a refusal stands: the machine may only have been busy. */
const REFUSED_MS = 60_000

/** What may come next, by request: a mask before each drafted token and after the last, as far as the grammar lets
 * them. A bit for each token; no bit: the answer is over. */
export type Masks = ReadonlyMap<RequestId, readonly Int32Array[]>

export const NO_MASKS: Masks = new Map()

/** A request of a step. `draft: null`: the step chooses nothing yet. It is then followed over at most so many of the tokens
 * that it has produced elsewhere: no step must wait for the whole of a long answer that goes on here. */
export type Asked =
  | { request: OpenRequest; draft: readonly number[] }
  | { request: OpenRequest; draft: null; most: number }

export class Constraints implements GrammarHolds {
  readonly #tokenizer: Tokenizer
  readonly #vocabSize: number
  readonly #limits: ConstraintLimits
  #vocabulary: Promise<Vocabulary> | null = null
  #serving: GrammarHost | null = null
  #spare: GrammarHost | null = null
  /** How many hold each grammar. */
  readonly #holds = new Map<string, number>()
  /** Grammars on hold that are known to compile. */
  readonly #sound = new Set<string>()
  readonly #compiling = new Map<string, Promise<void>>()
  /** Grammars that could not be compiled lately, the latest last: asking again costs nothing for a while. */
  readonly #refused = new Map<string, { refusal: UserError; untilMs: number }>()
  readonly #open = new Map<RequestId, { path: AnswerPath; grammar: string }>()
  readonly #still = new StillMasks()
  /** Requests that cannot be followed, and why. */
  readonly #lost = new Map<RequestId, string>()
  /** What is done with the spare host, one after the other. */
  #work: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(tokenizer: Tokenizer, vocabSize: number, limits: Partial<ConstraintLimits> = {}) {
    this.#tokenizer = tokenizer
    this.#vocabSize = vocabSize
    this.#limits = { ...CONSTRAINT_LIMITS, ...limits }
  }

  async hold(grammar: string): Promise<() => void> {
    const holders = this.#holds.get(grammar) ?? 0
    if (holders === 0 && this.#holds.size >= this.#limits.held)
      throw busy("too many different schemas are in use")
    this.#holds.set(grammar, holders + 1)
    try {
      if (!this.#isServed(grammar)) await this.#compiled(grammar)
      this.#sound.add(grammar)
    } catch (error) {
      this.#release(grammar)
      throw error
    }
    let held = true
    return () => {
      if (held) this.#release(grammar)
      held = false
    }
  }

  answersAtOnce(grammar: string): boolean {
    return this.#isServed(grammar) || this.#refusal(grammar) !== null
  }

  /** A request that is held to a grammar, which must be on hold. */
  open(request: OpenRequest, grammar: string): void {
    if (!this.#sound.has(grammar))
      throw new Error(`the grammar of request ${request.id} was not compiled before`)
    const path = new AnswerPath(request, this.#still.zonesOf(grammar), this.#tokenizer)
    this.#open.set(request.id, { path, grammar })
  }

  forget(id: RequestId): void {
    if (!this.#open.delete(id)) return
    this.#lost.delete(id)
    for (const host of [this.#serving, this.#spare]) host?.forget(id)
  }

  /** Masks of those that are held to a grammar. Throws where one cannot be followed: alone, the others can. */
  async masks(asked: readonly Asked[]): Promise<Masks> {
    const bound = asked.filter(({ request }) => this.#open.has(request.id))
    if (bound.length === 0) return NO_MASKS
    for (const { request } of bound) {
      const why = this.#lost.get(request.id)
      if (why !== undefined) throw new Error(why)
    }
    const all = new Map<RequestId, Int32Array[]>()
    const moving = bound.filter((one) => !this.#standsStill(one, all))
    if (moving.length === 0) return all
    if (!this.#serving?.alive) await this.#recover()
    const host = this.#serving!
    const requests = moving
      .map((one) => this.#followed(host, one.request, one.draft, one.draft === null ? one.most : Infinity))
      .filter(({ draft, tokens }) => draft !== null || tokens.length > 0)
    if (requests.length === 0) return all
    const { masks, counts } = await this.#follow(host, requests)
    const words = Math.ceil(this.#vocabSize / 32)
    let at = 0
    for (const [i, { id, draft }] of requests.entries()) {
      if (draft === null) continue
      if (counts[i] === 0) this.#lost.set(id, "its answer has left its grammar")
      const own = Array.from({ length: counts[i]! }, () => masks.subarray(words * at, words * ++at))
      all.set(id, own)
      const entry = this.#open.get(id)
      if (entry && own.length > 0) this.#still.learn(entry.grammar, entry.path.calmOver([]), own[0]!)
    }
    const lost = requests.find(({ id }) => this.#lost.has(id))
    if (lost) throw new Error(this.#lost.get(lost.id))
    return all
  }

  /** Where its grammar stands still what may come is known, if it was asked once. */
  #standsStill({ request, draft }: Asked, masks: Map<RequestId, Int32Array[]>): boolean {
    if (draft === null) return false
    const { path, grammar } = this.#open.get(request.id)!
    const known = this.#still.over(grammar, path.calmOver(draft), draft)
    if (known !== null) masks.set(request.id, known)
    return known !== null
  }

  close(): void {
    this.#closed = true
    this.#serving?.close()
    this.#spare?.close()
  }

  #isServed(grammar: string): boolean {
    const serving = this.#serving
    return serving?.alive === true && serving.grammars.has(grammar)
  }

  /** null where it was not refused, or too long ago. */
  #refusal(grammar: string): UserError | null {
    const refused = this.#refused.get(grammar)
    return refused !== undefined && performance.now() < refused.untilMs ? refused.refusal : null
  }

  async #compiled(grammar: string): Promise<void> {
    const refusal = this.#refusal(grammar)
    if (refusal !== null) throw refusal
    let compiling = this.#compiling.get(grammar)
    if (!compiling) {
      if (this.#compiling.size >= this.#limits.queued) throw busy("too many schemas wait to be compiled")
      compiling = this.#afterWork(() => this.#compile(grammar)).finally(() => this.#compiling.delete(grammar))
      this.#compiling.set(grammar, compiling)
    }
    await compiling
  }

  #afterWork<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#work.then(work)
    this.#work = turn.catch(() => {})
    return turn
  }

  /** Compiles on the spare host, and has it serve. */
  async #compile(grammar: string): Promise<void> {
    for (let chances = MOST_CHANCES; ; chances--) {
      // Those that asked may all have gone while it waited.
      if (!this.#holds.has(grammar)) return
      const spare = await this.#spareHost()
      if (this.#serving?.alive && this.#serving.grammars.has(grammar)) return
      await spare.compile(grammar, this.#limits.compileMs).catch((error: unknown) => {
        throw this.#refuse(grammar, error)
      })
      this.#sound.add(grammar)
      try {
        await this.#catchUp(spare)
      } catch (error) {
        // Another's fault ended the host. That one is not followed any more, so the next host comes further.
        if (this.#closed || chances === 1) throw busy("the schemas in use take too long to follow", error)
        continue
      }
      this.#spare = this.#serving?.alive ? this.#serving : null
      this.#serving = spare
      return
    }
  }

  #refuse(grammar: string, error: unknown): UserError {
    const late = error instanceof HostFailure && error.late
    const why = late ? `: it took longer than ${this.#limits.compileMs} ms; make it smaller or simpler` : ""
    const message = `The schema cannot be compiled${why}.`
    const refusal = userError("invalid_json_schema", { message }, { cause: error })
    this.#refused.delete(grammar)
    this.#refused.set(grammar, { refusal, untilMs: performance.now() + REFUSED_MS })
    const [oldest] = this.#refused.keys()
    if (this.#refused.size > this.#limits.kept) this.#refused.delete(oldest!)
    return refusal
  }

  async #spareHost(): Promise<GrammarHost> {
    if (!this.#spare?.alive) this.#spare = await this.#newHost()
    for (const grammar of this.#spare.grammars) {
      if (this.#spare.grammars.size < this.#limits.kept) break
      if (!this.#holds.has(grammar)) this.#spare.dropGrammar(grammar)
    }
    return this.#spare
  }

  async #newHost(): Promise<GrammarHost> {
    this.#vocabulary ??= vocabularyOf(this.#tokenizer, this.#vocabSize)
    const vocabulary = await this.#vocabulary
    if (this.#closed) throw new Error("the engine is closed")
    return GrammarHost.start(vocabulary)
  }

  /** Gives a host every grammar in use and tells it how far requests have come. */
  async #catchUp(host: GrammarHost): Promise<void> {
    const missing = () => [...this.#sound].find((grammar) => !host.grammars.has(grammar))
    // More may be in use after each wait.
    for (let grammar = missing(); grammar !== undefined; grammar = missing())
      await host.compile(grammar, this.#limits.compileMs)
    // Others are over and not yet forgotten, or came since: those are told when they are first followed here.
    for (const { path, grammar } of this.#open.values())
      if (this.#sound.has(grammar) && host.grammars.has(grammar)) await this.#tell(host, path.request)
    if (missing() !== undefined) await this.#catchUp(host)
  }

  async #tell(host: GrammarHost, request: OpenRequest): Promise<void> {
    if (this.#lost.has(request.id)) return
    await this.#follow(host, [this.#followed(host, request, null, Infinity)])
  }

  async #follow(host: GrammarHost, requests: Followed[]) {
    const answer = await host
      .follow({ requests }, this.#limits.followMs)
      .catch((error: unknown) => this.#stuck(error, requests))
    // It may have gone meanwhile: its place there would be kept for ever.
    for (const { id } of requests) if (!this.#open.has(id)) host.forget(id)
    return answer
  }

  /** The serving host was ended: another takes over. It does not wait for what is being compiled. */
  async #recover(): Promise<void> {
    const host = await this.#newHost()
    await this.#catchUp(host)
    if (this.#serving?.alive) host.close()
    else this.#serving = host
  }

  /** From where the host knows it, at most so many tokens further. */
  #followed(host: GrammarHost, request: OpenRequest, draft: Followed["draft"], most: number): Followed {
    const { id } = request
    const { path, grammar } = this.#open.get(id)!
    return { id, grammar, tokens: path.after(host.seen.get(id) ?? 0, most), draft }
  }

  #stuck(error: unknown, requests: readonly Followed[]): never {
    if (!(error instanceof HostFailure)) throw error
    const { id } = requests[error.place]!
    const late = `its schema took longer than ${this.#limits.followMs} ms for one token`
    const why = error.late ? late : `its schema cannot be followed (${error.message})`
    this.#lost.set(id, why)
    throw new Error(why)
  }

  #release(grammar: string): void {
    const left = this.#holds.get(grammar)! - 1
    if (left > 0) this.#holds.set(grammar, left)
    else {
      this.#holds.delete(grammar)
      this.#sound.delete(grammar)
      this.#still.forget(grammar)
    }
  }
}

function busy(why: string, cause?: unknown): UserError {
  return userError("too_many_schemas", { why }, { cause })
}
