/** What gateways of one address tell each other of the requests that each has at one engine, so that the twin of each knows those of
 * all: what it is sent, what came back, and what the others hold. Without it they would see each other in /metrics alone, once a
 * second, and without deadlines. */
import type { RequestId } from "../../core/protocol.ts"
import type { Siblings, TellSoon } from "../../siblings/siblings.ts"
import type { Held, Twin, TwinSpec, UnderWay } from "../twin.ts"
import type { CacheSeen, JobSpecs } from "./job-specs.ts"
import type { RemoteHostOptions } from "./remote-options.ts"

/** Times are of a clock that all of them have. */
export type LoadWord =
  | { type: "held"; id: RequestId; spec: TwinSpec; deadlineUs: number }
  /** `forced`: whatever it does to promises. */
  | { type: "sent"; id: RequestId; spec: TwinSpec; forced: boolean }
  | { type: "cached" | "tokens"; id: RequestId; tokens: number }
  /** It is not there any more, nor held. `stopped`: it ended by itself. */
  | { type: "ended"; id: RequestId; stopped: boolean }
  | { type: "saw"; seen: CacheSeen }

/** What one has there, for those that come to listen. */
export type WholeWord =
  | Extract<LoadWord, { type: "held" }>
  | ({ type: "underWay"; id: RequestId; forced: boolean } & UnderWay)

export interface LoadOptions {
  twin: Twin
  tellSoon: TellSoon
  /** From the clock here to the one that all have, µs. */
  clockUs: number
  /** What the engine had of a session's prompt in its cache. */
  saw: (seen: CacheSeen) => void
  /** Another sent this one, now or then. */
  sentElsewhere: (spec: TwinSpec, forced: boolean, atUs: number) => void
}

/** What is held. */
interface Waiting {
  spec: TwinSpec
  deadlineUs: number
}

/** Ids of others' requests, down from here: a twin's own are above 0, and forecasts use a few below. */
const [FIRST_ID, IDS_A_SIBLING] = [-(2 ** 42), 2 ** 32]

const idOf = (from: number, id: RequestId): RequestId => FIRST_ID - from * IDS_A_SIBLING - id

export class SharedLoad {
  readonly #options: LoadOptions
  #words: LoadWord[] = []
  /** Held or grown since what was told last: most of what is held is sent at once, and tokens come one by one. */
  readonly #newlyHeld = new Map<RequestId, LoadWord>()
  readonly #newTokens = new Map<RequestId, number>()
  #telling = false
  /** What is held here, and what was sent, with whether it was forced out. */
  readonly #ownHeld = new Map<RequestId, Waiting>()
  readonly #own = new Map<RequestId, boolean>()
  /** What others hold, and what they have sent, by ids here. */
  readonly #held = new Map<RequestId, Waiting>()
  readonly #sent = new Set<RequestId>()

  constructor(options: LoadOptions) {
    this.#options = options
  }

  /** Promises that others hold. */
  get heldElsewhere(): number {
    return this.#held.size
  }

  // What is told of the own ones.

  held(id: RequestId, spec: TwinSpec, deadlineUs: number): void {
    if (spec.tier !== "slo") return
    const { clockUs } = this.#options
    this.#ownHeld.set(id, { spec, deadlineUs })
    this.#newlyHeld.set(id, {
      ...{ type: "held", id, deadlineUs: deadlineUs + clockUs },
      spec: movedBy(spec, clockUs),
    })
    this.#tellSoon()
  }

  sent(id: RequestId, spec: TwinSpec, forced: boolean): void {
    this.#newlyHeld.delete(id)
    this.#ownHeld.delete(id)
    this.#own.set(id, forced)
    this.#tell({ type: "sent", id, spec: movedBy(spec, this.#options.clockUs), forced })
  }

  cached(id: RequestId, tokens: number): void {
    this.#tell({ type: "cached", id, tokens })
  }

  tokens(id: RequestId, count: number): void {
    this.#newTokens.set(id, (this.#newTokens.get(id) ?? 0) + count)
    this.#tellSoon()
  }

  ended(id: RequestId, stopped: boolean): void {
    this.#ownHeld.delete(id)
    this.#own.delete(id)
    if (this.#newlyHeld.delete(id)) return
    this.#tellTokens(id)
    this.#tell({ type: "ended", id, stopped })
  }

  saw(seen: CacheSeen | null): void {
    if (seen !== null) this.#tell({ type: "saw", seen })
  }

  /** All of the own ones, as they are once all that was told is heard. */
  whole(nowUs: number): WholeWord[] {
    const { twin, clockUs } = this.#options
    const words: WholeWord[] = []
    for (const [id, { spec, deadlineUs }] of this.#ownHeld) words.push({ type: "held", id, spec, deadlineUs })
    const there = twin.underWay(nowUs)
    for (const [id, forced] of this.#own) {
      const underWay = there.get(id)
      if (underWay !== undefined) words.push({ type: "underWay", id, forced, ...underWay })
    }
    return words.map((word) => wholeMovedBy(word, clockUs))
  }

  // What others told.

  hear(words: readonly LoadWord[], from: number, nowUs: number): void {
    const ended = new Map<RequestId, boolean>()
    for (const word of words) {
      if (word.type === "saw") {
        this.#options.saw(word.seen)
        continue
      }
      const id = idOf(from, word.id)
      if (word.type === "ended") ended.set(id, word.stopped)
      else if (word.type === "held" || word.type === "sent") {
        // It may have been there before.
        this.#endAll(ended, nowUs)
        ended.clear()
        this.#heard(word, id, nowUs)
      } else if (!ended.has(id)) this.#heard(word, id, nowUs)
    }
    this.#endAll(ended, nowUs)
  }

  /** All that it has: of what it told before that alone goes on, and as it is known here. */
  hearWhole(words: readonly WholeWord[], from: number, nowUs: number): void {
    const { twin, clockUs, sentElsewhere } = this.#options
    const known = twin.underWay(nowUs)
    const found = new Map<RequestId, UnderWay & { forced: boolean }>()
    const there = new Set<RequestId>()
    for (const id of this.#idsOf(from, this.#held.keys())) this.#held.delete(id)
    for (const one of words) {
      const [id, word] = [idOf(from, one.id), wholeMovedBy(one, -clockUs)]
      if (word.type === "held") this.#held.set(id, { spec: word.spec, deadlineUs: word.deadlineUs })
      else {
        there.add(id)
        if (this.#sent.has(id)) this.#cameOn(id, word, known.get(id), nowUs)
        else found.set(id, word)
      }
    }
    const over = this.#idsOf(from, this.#sent).filter((id) => !there.has(id))
    this.#endAll(new Map(over.map((id) => [id, false])), nowUs)
    if (found.size === 0) return
    twin.foundElsewhere(found, nowUs)
    for (const [id, { spec, forced, sentUs }] of found) {
      this.#sent.add(id)
      sentElsewhere(spec, forced, sentUs)
    }
  }

  /** It is gone, and so are its connections. */
  left(from: number, nowUs: number): void {
    this.hearWhole([], from, nowUs)
  }

  #idsOf(from: number, ids: Iterable<RequestId>): RequestId[] {
    return [...ids].filter((id) => id <= idOf(from, 0) && id > idOf(from + 1, 0))
  }

  /** What it told of it in between was not heard. */
  #cameOn(id: RequestId, { tokens, firstUs }: UnderWay, known: UnderWay | undefined, nowUs: number): void {
    if (known === undefined || firstUs === null) return
    if (known.firstUs === null || tokens > known.tokens)
      this.#options.twin.tokens(id, tokens - known.tokens, nowUs)
  }

  /** What goes out before a request with this deadline, and after: `own`, and what others hold. */
  around(deadlineUs: number, own: Held): Held {
    const theirs = [...this.#held.values()]
    const specs = (which: (one: Waiting) => boolean) => theirs.filter(which).map(({ spec }) => spec)
    return {
      before: [...own.before, ...specs((one) => one.deadlineUs <= deadlineUs)],
      after: [...own.after, ...specs((one) => one.deadlineUs > deadlineUs)],
    }
  }

  #heard(word: Exclude<LoadWord, { type: "saw" | "ended" }>, id: RequestId, nowUs: number): void {
    const { twin, clockUs, sentElsewhere } = this.#options
    if (word.type === "held")
      this.#held.set(id, { spec: movedBy(word.spec, -clockUs), deadlineUs: word.deadlineUs - clockUs })
    else if (word.type === "sent") {
      this.#held.delete(id)
      this.#sent.add(id)
      const spec = movedBy(word.spec, -clockUs)
      twin.sentElsewhere(id, spec, nowUs)
      sentElsewhere(spec, word.forced, nowUs)
    }
    // What it sent before it was heard here it tells as a whole, with all that came of it.
    else if (!this.#sent.has(id)) return
    else if (word.type === "cached") twin.cached(id, word.tokens)
    else twin.tokens(id, word.tokens, nowUs)
  }

  /** With whether it ended by itself. A gateway that goes takes thousands with it, and the twin is run forward for each that ends
   * alone. */
  #endAll(ended: ReadonlyMap<RequestId, boolean>, nowUs: number): void {
    for (const id of ended.keys()) this.#held.delete(id)
    const sent = [...ended].filter(([id]) => this.#sent.delete(id))
    if (sent.length > 0) this.#options.twin.endedTogether(sent, nowUs)
  }

  #tell(word: LoadWord): void {
    this.#words.push(word)
    this.#tellSoon()
  }

  #tellTokens(id: RequestId): void {
    const tokens = this.#newTokens.get(id)
    if (tokens === undefined) return
    this.#newTokens.delete(id)
    this.#words.push({ type: "tokens", id, tokens })
  }

  #tellSoon(): void {
    if (this.#telling) return
    this.#telling = true
    this.#options.tellSoon(() => this.#takeWords())
  }

  #takeWords(): LoadWord[] {
    this.#telling = false
    for (const id of [...this.#newTokens.keys()]) this.#tellTokens(id)
    const words = [...this.#words, ...this.#newlyHeld.values()]
    this.#words = []
    this.#newlyHeld.clear()
    return words
  }
}

/** What is told of the engine of that name. */
export const LOAD_TOPIC = "load of "
const loadOf = (name: string): string => LOAD_TOPIC + name

/** The clock that all processes of a machine have: it began when that did, µs. */
export const machineUs = (): number => Number(process.hrtime.bigint() / 1000n)

/** From `performance.now()` to it, µs. */
const CLOCK_US = machineUs() - performance.now() * 1000

/** Of one engine, between this process and its siblings; null: it has none, or another process plans for all of them. `holding`: what
 * others said may change what is to be sent. */
export function shareLoad(
  { siblings, planner, name }: Pick<RemoteHostOptions, "siblings" | "planner" | "name">,
  twin: Twin,
  specs: JobSpecs,
  holding: Sending,
): SiblingsLoad | null {
  if (!siblings || planner) return null
  return new SiblingsLoad(siblings, loadOf(name), twin, specs, holding)
}

/** Of what holds requests back. */
interface Sending {
  look(): void
  sentElsewhere(spec: TwinSpec, forced: boolean, atUs: number): void
}

export class SiblingsLoad extends SharedLoad {
  readonly #stop: (() => void)[]

  constructor(siblings: Siblings, topic: string, twin: Twin, specs: JobSpecs, holding: Sending) {
    super({
      ...{ twin, clockUs: CLOCK_US, saw: (seen) => specs.saw(seen) },
      sentElsewhere: (spec, forced, atUs) => holding.sentElsewhere(spec, forced, atUs),
      tellSoon: (words) => siblings.tellSoon(topic, words),
    })
    const nowUs = () => Math.round(performance.now() * 1000)
    this.#stop = [
      siblings.onTold(topic, (words: readonly LoadWord[], from) => {
        this.hear(words, from, nowUs())
        holding.look()
      }),
      siblings.has<WholeWord>(topic, {
        tells: () => this.whole(nowUs()),
        hears: (words, from) => {
          this.hearWhole(words, from, nowUs())
          holding.look()
        },
      }),
      siblings.onLeft((from) => {
        this.left(from, nowUs())
        holding.look()
      }),
    ]
  }

  /** Nothing is heard any more. */
  close(): void {
    for (const stop of this.#stop) stop()
  }
}

/** On another clock, so many µs ahead. */
export function wordMovedBy(word: LoadWord, us: number): LoadWord {
  if (word.type === "held") return { ...word, spec: movedBy(word.spec, us), deadlineUs: word.deadlineUs + us }
  return word.type === "sent" ? { ...word, spec: movedBy(word.spec, us) } : word
}

export function wholeMovedBy(word: WholeWord, us: number): WholeWord {
  const spec = movedBy(word.spec, us)
  if (word.type === "held") return { ...word, spec, deadlineUs: word.deadlineUs + us }
  const { sentUs, firstUs } = word
  return { ...word, spec, sentUs: sentUs + us, firstUs: firstUs === null ? null : firstUs + us }
}

function movedBy(spec: TwinSpec, us: number): TwinSpec {
  return spec.arrivalUs === undefined ? spec : { ...spec, arrivalUs: spec.arrivalUs + us }
}
