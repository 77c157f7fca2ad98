/** For tests of a fleet: a clock that a test moves, and replicas that say what it has them say. */
import type { Clock } from "../replica/clock.ts"
import type { Digest, HostState, Job, JobEnd, JobId, JobSink, Offer, ReplicaHost } from "../replica/host.ts"
import { IDLE } from "../router/testing.ts"

/** Time stands still until it is moved. */
export class StillClock implements Clock {
  #nowUs = 0
  #timers: { atUs: number; fn: () => void }[] = []

  nowUs(): number {
    return this.#nowUs
  }
  wakeAt(atUs: number, fn: () => void): () => void {
    const timer = { atUs, fn }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }
  soon(fn: () => void): void {
    this.wakeAt(this.#nowUs, fn)
  }

  advance(us: number): void {
    this.runTo(this.#nowUs + us)
  }
  /** The process stands still: what is due happens when it goes on, all of it late. */
  standStill(us: number): void {
    this.#nowUs += us
    this.runTo(this.#nowUs)
  }
  /** What is due until then happens at its time; at that time itself only if `timers`. */
  runTo(untilUs: number, timers = true): void {
    for (;;) {
      const atUs = Math.min(...this.#timers.map((timer) => timer.atUs))
      if (atUs > untilUs || (atUs === untilUs && !timers)) break
      this.#nowUs = Math.max(this.#nowUs, atUs)
      const timer = this.#timers.find((other) => other.atUs === atUs)!
      this.#timers = this.#timers.filter((other) => other !== timer)
      timer.fn()
    }
    this.#nowUs = untilUs
  }
}

/** An end that is one. */
export const FINISHED = { kind: "finished", reason: "stop", usage: {}, outcome: {} } as unknown as JobEnd

export class SaidHost implements ReplicaHost {
  readonly name: string
  state: HostState = "ready"
  detail = ""
  readonly info = null
  comesBack = false
  /** Until it is back. */
  backIn: () => number | null = () => null
  /** Refuses whatever is submitted, inside the call. */
  refuses: string | null = null
  readonly asked: { job: Job; deadlineMs: number; answer: (takes: boolean) => void }[] = []
  readonly submitted: { job: Job; sink: JobSink }[] = []
  readonly withdrawals: { id: JobId; answer: (ok: boolean) => void }[] = []
  readonly cancelled: JobId[] = []
  readonly givenUp: string[] = []
  #digest: Digest | null = null
  #takenAtUs = 0
  readonly #listeners = new Set<(state: HostState) => void>()

  constructor(name: string) {
    this.name = name
  }

  get backInUs(): number | null {
    return this.backIn()
  }

  become(state: HostState, detail = ""): void {
    this.state = state
    this.detail = detail
    for (const listener of this.#listeners) listener(state)
  }
  /** How it is, from now on. */
  say(nowUs: number, digest: Partial<Digest> = {}): void {
    const engine = { state: "ok", detail: "", trips: 0, downUs: { hung: 0, failing: 0 } } as const
    this.#digest = { snapshot: { ...IDLE, nowUs }, engine, ageUs: 0, ...digest }
    this.#takenAtUs = nowUs
  }

  onState(listener: (state: HostState) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
  onObserved(): () => void {
    return () => {}
  }
  offer(job: Job, deadlineMs: number): Promise<Offer> {
    return new Promise((resolve) => {
      this.asked.push({ job, deadlineMs, answer: (takes) => resolve({ takes, promptTokens: 1 }) })
    })
  }
  submit(job: Job, sink: JobSink): void {
    this.submitted.push({ job, sink })
    if (this.refuses === null) return
    for (const { index } of job.choices)
      sink.end(index, { kind: "lost", reason: "refused", detail: this.refuses })
  }
  cancel(id: JobId): void {
    this.cancelled.push(id)
  }
  withdraw(id: JobId): Promise<boolean> {
    return new Promise((answer) => this.withdrawals.push({ id, answer }))
  }
  get computes(): boolean {
    return (this.#digest?.engine.state ?? "ok") === "ok"
  }
  digest(): Digest | null {
    return this.#digest && { ...this.#digest, ageUs: this.ageAt(this.#takenAtUs) }
  }
  /** Set by a test that has a clock. */
  ageAt: (takenAtUs: number) => number = () => 0
  async drain(): Promise<void> {
    this.become("draining")
  }
  giveUp(detail: string): void {
    this.givenUp.push(detail)
  }
  async close(): Promise<void> {
    this.become("closed")
  }
}
