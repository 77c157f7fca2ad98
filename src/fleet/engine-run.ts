/** An engine's steps run forward by its own rules, on a cost model. It decides as the core's policies of the same names
 * do (a test holds both side by side), but counts decodes together instead of one by one: a fleet asks for such a run
 * for every request and engine. KV that runs out while decoding is left out: it would preempt. */
import { attentionPairs, type CostModel, type StepShape, stepUs } from "../core/cost.ts"
import type { RequestId } from "../core/protocol.ts"
import type { EngineRules } from "./engine-rules.ts"

/** A request without a token out. */
export interface Prompt {
  id: RequestId
  /** When the engine has it, absolute µs. */
  readyUs: number
  /** First token due, absolute µs; Infinity without an objective. */
  deadlineUs: number
  /** Prompt tokens, and how many of them need not be computed (any more). */
  tokens: number
  computed: number
  /** Output tokens expected. */
  outputTokens: number
  tpotUs: number
  /** It had a share of a step: such prompts go on before others start. */
  started: boolean
  /** Found by the run: when its first chunk starts, and its first token comes; Infinity while it has not. */
  startsUs: number
  firstTokenUs: number
}

/** A request that decodes. */
export interface Stream {
  /** Tokens whose KV is in place: all but its latest. */
  contextTokens: number
  /** Output tokens still expected; at least 1. */
  remaining: number
  /** When its next token is due, absolute µs; Infinity without an objective. */
  dueUs: number
  tpotUs: number
}

export interface RunOptions {
  rules: EngineRules
  cost: CostModel
  /** They are changed by the run. */
  prompts: Prompt[]
  streams: Iterable<Stream>
  /** When its first step begins, absolute µs. */
  atUs: number
  /** A prompt whose pace is told apart from others' of the same TPOT. */
  watched?: RequestId | null
}

/** The tightest of the streams of a pace. */
interface Due {
  tpotUs: number
  /** When a token would have been due at decode step 0; one more is due a TPOT later each step. */
  baseUs: number
  /** The last of them ends here. */
  lastStep: number
}

/** Tokens that an output of unknown length is looked ahead for, and steps that its pace is told from. */
const MOST_AHEAD = 512
const STEPS_OF_MEAN = 32

/** Streams that end within the same step. */
interface Ending {
  count: number
  contextTokens: number
}

/** Streams of one TPOT, or the watched one. */
export type Pace = number | "watched"

export class EngineRun {
  /** When the step that runs now began: nothing later was decided. */
  nowUs: number
  /** Prompts without a first token, in the order in which they are served. */
  readonly line: Prompt[]
  #rules: EngineRules
  #cost: CostModel
  #streams = 0
  #contextTokens = 0
  /** Steps that yielded a token to every stream. */
  #decodeSteps = 0
  #endings = new Map<number, Ending>()
  #paces = new Map<Pace, Due>()
  #shape: StepShape = {
    tokens: 0,
    sequences: 0,
    passes: 1,
    fastPairs: 0,
    slowPairs: 0,
    outputs: 0,
    specSteps: 0,
  }
  #fromUs: number
  #watched: RequestId | null
  /** When the latest decode steps landed. */
  #landed: number[] = []
  /** Of the step under construction, by place in `line`. */
  #chunks: number[] = []
  #mostContextTokens = 0

  constructor({ rules, cost, prompts, streams, atUs, watched = null }: RunOptions) {
    this.#rules = rules
    this.#cost = cost
    this.#watched = watched
    this.nowUs = this.#fromUs = atUs
    this.line = prompts.sort(rules.order === "arrival" ? byArrival : byDeadline)
    for (const stream of streams) this.#join(stream)
  }

  /** Streams that were given a token later than it was due: by TPOT, the watched one by itself. */
  readonly latePaces = new Set<Pace>()

  /** Decide and run one step: when it lands, absolute µs; -1 when nothing is left to do. It lands at `notBeforeUs` at the
   * earliest: what has not been seen by then has not happened. */
  step(notBeforeUs = -Infinity): number {
    if (!this.#fill()) {
      const nextUs = this.#nextReadyUs()
      if (nextUs === Infinity) return -1
      this.nowUs = nextUs
      if (!this.#fill()) return -1
    }
    this.#land(Math.max(notBeforeUs, this.nowUs + stepUs(this.#cost, this.#shape)))
    return this.nowUs
  }

  /** Run the steps that land by `untilUs`, as long as no prompt is finished: that would have been seen. */
  catchUp(untilUs: number, mostSteps: number): void {
    for (let steps = 0; steps < mostSteps; steps++) {
      if (!this.#fill()) {
        const nextUs = this.#nextReadyUs()
        if (nextUs > untilUs) return
        this.nowUs = nextUs
        if (!this.#fill()) return
      }
      const landsUs = this.nowUs + stepUs(this.#cost, this.#shape)
      if (landsUs > untilUs || this.#finishesPrompt()) return
      this.#land(landsUs)
    }
    this.nowUs = untilUs
  }

  /** Put the next step together. Answers whether there is anything in it. */
  #fill(): boolean {
    const { tokenBudget, mixed } = this.#rules
    const shape = this.#shape
    shape.tokens = shape.sequences = shape.fastPairs = shape.outputs = 0
    if (mixed) this.#addDecodes()
    this.#addPrompts(tokenBudget)
    if (!mixed && shape.sequences === 0) this.#addDecodes()
    return shape.sequences > 0
  }

  #addDecodes(): void {
    const shape = this.#shape
    shape.tokens += this.#streams
    shape.sequences += this.#streams
    shape.outputs += this.#streams
    shape.fastPairs += this.#contextTokens + this.#streams
  }

  #addPrompts(budget: number): void {
    const { mixed } = this.#rules
    const shape = this.#shape
    const chunks = this.#chunks
    chunks.length = 0
    let { sequences, kvTokens } = this.#held()
    for (const prompt of this.line) {
      const left = budget - shape.tokens
      if (left < 1) break
      if (prompt.readyUs > this.nowUs) {
        chunks.push(0)
        continue
      }
      const owed = prompt.tokens - prompt.computed
      // Engines that compute prompts alone take them whole, as long as more than one fits.
      if (!mixed && owed > left && shape.sequences > 0) break
      if (!prompt.started && ++sequences > this.#rules.maxSequences) break
      const tokens = Math.min(owed, left)
      // Engines ask for the room of the chunk at hand, not of what is to come.
      if (!prompt.started && (kvTokens += prompt.computed + tokens) > this.#rules.kvTokens) break
      chunks.push(tokens)
      shape.tokens += tokens
      shape.sequences++
      shape.outputs += tokens === owed ? 1 : 0
      shape.fastPairs += attentionPairs(prompt.computed, tokens)
    }
  }

  /** What streams and prompts under way hold. */
  #held(): { sequences: number; kvTokens: number } {
    let sequences = this.#streams
    let kvTokens = this.#contextTokens
    for (const prompt of this.line) {
      if (!prompt.started) continue
      sequences++
      kvTokens += prompt.computed
    }
    return { sequences, kvTokens }
  }

  #finishesPrompt(): boolean {
    return this.#chunks.some((tokens, i) => tokens > 0 && tokens === this.#owed(i))
  }
  #owed(place: number): number {
    return this.line[place]!.tokens - this.line[place]!.computed
  }

  #land(landsUs: number): void {
    const beganUs = this.nowUs
    this.nowUs = landsUs
    const decoded = this.#rules.mixed || this.#chunks.every((tokens) => tokens === 0)
    if (decoded) this.#decoded(landsUs)
    let kept = 0
    for (let i = 0; i < this.line.length; i++) {
      const prompt = this.line[i]!
      const tokens = this.#chunks[i] ?? 0
      if (tokens > 0) this.#computed(prompt, tokens, beganUs, landsUs)
      if (prompt.firstTokenUs === Infinity) this.line[kept++] = prompt
    }
    this.line.length = kept
    if (this.#rules.order === "deadline") this.line.sort(byDeadline)
  }

  #computed(prompt: Prompt, tokens: number, beganUs: number, landsUs: number): void {
    if (!prompt.started) prompt.startsUs = beganUs
    prompt.started = true
    prompt.computed += tokens
    if (prompt.computed < prompt.tokens) return
    prompt.firstTokenUs = landsUs
    if (prompt.outputTokens <= 1) return
    const { tpotUs, deadlineUs } = prompt
    // An early first token is slack.
    const dueUs = (deadlineUs === Infinity ? landsUs : Math.max(deadlineUs, landsUs)) + tpotUs
    const remaining = prompt.outputTokens - 1
    this.#join({ contextTokens: prompt.tokens, remaining, dueUs, tpotUs }, prompt.id === this.#watched)
  }

  #join({ contextTokens, remaining, dueUs, tpotUs }: Stream, watched = false): void {
    this.#streams++
    this.#contextTokens += contextTokens
    if (remaining < Infinity) {
      const last = this.#decodeSteps + Math.max(1, Math.ceil(remaining))
      const ending = this.#endings.get(last) ?? { count: 0, contextTokens: 0 }
      ending.count++
      ending.contextTokens += contextTokens + last - this.#decodeSteps
      this.#endings.set(last, ending)
    }
    if (dueUs === Infinity || tpotUs === Infinity) return
    const pace: Pace = watched ? "watched" : tpotUs
    const due = this.#paces.get(pace) ?? { tpotUs, baseUs: Infinity, lastStep: 0 }
    due.baseUs = Math.min(due.baseUs, dueUs - (this.#decodeSteps + 1) * tpotUs)
    due.lastStep = Math.max(due.lastStep, this.#decodeSteps + Math.min(remaining, MOST_AHEAD))
    this.#paces.set(pace, due)
  }

  /** Every stream had a token. */
  #decoded(atUs: number): void {
    this.#contextTokens += this.#streams
    this.#mostContextTokens = Math.max(this.#mostContextTokens, this.#contextTokens)
    const step = ++this.#decodeSteps
    this.#landed.push(atUs)
    if (this.#landed.length > STEPS_OF_MEAN) this.#landed.shift()
    // Steps scatter: what is only just in time is late as often as not.
    const surelyUs = atUs + (atUs - this.#fromUs) * 2 * this.#cost.residualSigma
    for (const [pace, { baseUs, tpotUs, lastStep }] of this.#paces) {
      if (step <= lastStep && surelyUs > baseUs + step * tpotUs) this.latePaces.add(pace)
    }
    const ending = this.#endings.get(step)
    if (ending === undefined) return
    this.#streams -= ending.count
    this.#contextTokens -= ending.contextTokens
    this.#endings.delete(step)
  }

  /** Paces that are kept so far, but will not be if steps go on to take what the latest took in the mean. */
  lookAhead(): void {
    const landed = this.#landed
    if (landed.length < 2) return
    const meanUs = (landed.at(-1)! - landed[0]!) / (landed.length - 1)
    const surelyUs = meanUs * (1 + 2 * this.#cost.residualSigma)
    for (const [pace, { baseUs, tpotUs, lastStep }] of this.#paces) {
      const steps = lastStep - this.#decodeSteps
      if (steps > 0 && this.nowUs + steps * surelyUs > baseUs + lastStep * tpotUs) this.latePaces.add(pace)
    }
  }

  /** Most KV that streams come to hold, tokens, if each gets as long as is expected, and the line starts now. */
  peakKvTokens(): number {
    const ends = [...this.#endings].map(([step, ending]) => ({
      inSteps: step - this.#decodeSteps,
      ...ending,
    }))
    let streams = this.#streams
    let held = this.#contextTokens
    for (const { tokens, outputTokens } of this.line) {
      streams++
      held += tokens
      ends.push({
        inSteps: Math.ceil(outputTokens),
        count: 1,
        contextTokens: tokens + Math.ceil(outputTokens),
      })
    }
    let peak = Math.max(this.#mostContextTokens, held)
    let at = 0
    for (const { inSteps, count, contextTokens } of ends.sort((a, b) => a.inSteps - b.inSteps)) {
      held += streams * (inSteps - at)
      at = inSteps
      peak = Math.max(peak, held)
      streams -= count
      held -= contextTokens
    }
    return peak
  }

  /** Which promises to these prompts, and to streams, did not hold: first tokens that came late or not at all by now, and
   * paces. Not the watched one's. */
  broken(prompts: readonly Prompt[]): string[] {
    const broken: string[] = []
    for (const { id, deadlineUs, firstTokenUs } of prompts) {
      if (id !== this.#watched && Math.min(firstTokenUs, this.nowUs) > deadlineUs)
        broken.push(`first token of ${id}`)
    }
    for (const pace of this.latePaces) if (pace !== "watched") broken.push(`pace of ${pace} µs`)
    return broken
  }

  #nextReadyUs(): number {
    let nextUs = Infinity
    for (const { readyUs } of this.line) if (readyUs > this.nowUs) nextUs = Math.min(nextUs, readyUs)
    return nextUs
  }
}

function byArrival(a: Prompt, b: Prompt): number {
  return Number(b.started) - Number(a.started) || a.readyUs - b.readyUs || a.id - b.id
}
function byDeadline(a: Prompt, b: Prompt): number {
  return (
    Number(b.started) - Number(a.started) ||
    a.deadlineUs - b.deadlineUs ||
    a.readyUs - b.readyUs ||
    a.id - b.id
  )
}
