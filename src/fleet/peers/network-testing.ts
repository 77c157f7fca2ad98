/** For tests: gateways, each with processes of its own, on a network of cables that take their time. Timers are to be faked. */
import { Duplex } from "node:stream"
import { specOf } from "../../core/testing.ts"
import { Hub } from "../../siblings/hub.ts"
import type { ToSibling } from "../../siblings/messages.ts"
import { Siblings } from "../../siblings/siblings.ts"
import { JobSpecs } from "../backends/job-specs.ts"
import { SiblingsLoad } from "../backends/shared-load.ts"
import { ENGINE_RULES } from "../engine-rules.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import { Links } from "./links.ts"

const nowUs = () => Math.round(performance.now() * 1000)

/** What is given to it happens later, in order: faked timers of one moment do not keep it. */
class Line {
  readonly #waiting: (() => void)[] = []
  readonly #delayMs: number

  constructor(delayMs: number) {
    this.#delayMs = delayMs
  }

  push(work: () => void): void {
    this.#waiting.push(work)
    setTimeout(() => this.#waiting.shift()!(), this.#delayMs)
  }
}

/** An end of a cable. */
class End extends Duplex {
  other!: End
  readonly #line: Line

  constructor(delayMs: number) {
    super({ allowHalfOpen: false })
    this.#line = new Line(delayMs)
  }

  override _read(): void {}
  override _write(piece: Buffer, _encoding: string, done: () => void): void {
    this.#carry(() => this.other.push(piece))
    done()
  }
  override _final(done: () => void): void {
    this.#carry(() => this.other.push(null))
    done()
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#carry(() => this.other.destroy())
    done(error)
  }

  #carry(arrive: () => void): void {
    this.#line.push(() => {
      if (!this.other.destroyed) arrive()
    })
  }
}

/** A process, with what it has at one engine. */
export class TestProcess {
  readonly twin = new Twin({ rules: ENGINE_RULES.vllm })
  readonly load: SiblingsLoad
  /** Output tokens of each request that it sent and that has not ended. */
  readonly sent = new Map<number, number>()
  readonly held = new Set<number>()
  #alive = true

  constructor(hub: Hub, index: number, count: number) {
    const [out, back] = [new Line(0), new Line(0)]
    const send = (message: ToSibling) => this.#soon(back, message, (copy) => siblings.heard(copy))
    const siblings: Siblings = new Siblings(index, count, (message) =>
      this.#soon(out, message, (copy) => hub.heard(index, copy, send)),
    )
    const holding = { look() {}, sentElsewhere() {} }
    this.load = new SiblingsLoad(siblings, "load of 10.0.0.7:8000", this.twin, new JobSpecs(false), holding)
    hub.joined(index, send)
  }

  die(): void {
    this.#alive = false
  }

  hold(id: number): void {
    this.held.add(id)
    this.load.held(id, specWith(id), nowUs() + 1e6)
  }

  send(id: number): void {
    this.held.delete(id)
    this.sent.set(id, 0)
    this.twin.sent(id, specWith(id), nowUs())
    this.load.sent(id, specWith(id), false)
  }

  tokens(id: number, count: number): void {
    this.sent.set(id, this.sent.get(id)! + count)
    this.twin.tokens(id, count, nowUs())
    this.load.tokens(id, count)
  }

  end(id: number): void {
    if (!this.held.delete(id)) this.twin.ended(id, nowUs())
    this.sent.delete(id)
    this.load.ended(id, true)
  }

  /** What it knows of others' requests: which, and how far they are. */
  knows(): [id: number, tokens: number][] {
    return [...this.twin.underWay(nowUs())]
      .filter(([id]) => id < 0)
      .map(([, { spec, tokens }]) => [spec.promptTokens, tokens])
  }

  #soon<T>(line: Line, message: T, then: (copy: T) => void): void {
    const copy = structuredClone(message)
    line.push(() => {
      if (this.#alive) then(copy)
    })
  }
}

/** Each has a length of its own, by which it is known everywhere. */
function specWith(id: number): TwinSpec {
  return { ...specOf(1, { arrivalUs: nowUs() }), promptTokens: id, cachedTokens: 0 }
}

export class TestGateway {
  readonly name: string
  readonly said: string[] = []
  readonly hub = new Hub()
  readonly links: Links
  processes: TestProcess[]

  constructor(name: string, processes: number) {
    this.name = name
    this.links = new Links({
      hub: this.hub,
      processes,
      apps: 2,
      gateway: name,
      log: (message) => this.said.push(message),
    })
    this.hub.elsewhere = this.links
    this.processes = Array.from({ length: processes }, (_, i) => new TestProcess(this.hub, i, processes))
  }

  /** It dies, and another comes in its place. */
  restart(index: number): void {
    this.processes[index]!.die()
    this.hub.left(index)
    this.processes[index] = new TestProcess(this.hub, index, this.processes.length)
  }

  die(): void {
    for (const one of this.processes) one.die()
    this.links.close()
  }
}

/** `by` makes a connection to the other; the answer cuts it. `delayMs`: what goes there takes so long, and what comes back `backMs`. */
export function connect(by: TestGateway, to: TestGateway, delayMs: number, backMs = delayMs): () => void {
  const [near, far] = [new End(delayMs), new End(backMs)]
  near.other = far
  far.other = near
  const dial = { standsFor: null, up() {}, later() {} }
  by.links.connected(near, { name: to.name, sameMachine: false, dial })
  to.links.connected(far, { name: by.name, sameMachine: false, dial: null })
  return () => {
    near.destroy()
    far.destroy()
  }
}
