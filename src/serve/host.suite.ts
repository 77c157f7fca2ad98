/** One suite over every replica that a fleet can have: in this process, behind a wire, in a process of its own. */
import { afterEach, describe, expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import type { SeenStart } from "../core/seen.ts"
import { TIME_PARTS } from "../core/time-account.ts"
import { GREEDY } from "../engine/port.ts"
import type { Generation } from "../replica/generation.ts"
import type { Begun, Digest, Job, JobEnd, JobSink, ReplicaHost } from "../replica/host.ts"
import type { Observed } from "../replica/observed.ts"
import { resolveSlo } from "./slo-resolve.ts"
import { until } from "./until-testing.ts"

/** What the suite's replicas are made with: the fake engine, at most so many live requests. */
export const SUITE_MAX_QUEUE = 8

const classes = defaultSloClasses()

/** For `jobOf`. */
export const NO_SLO = { class: "best_effort", ttft_ms: undefined, tpot_ms: undefined }

export function generation(changes: Partial<Generation> = {}, slo: object = {}): Generation {
  return {
    prompt: { kind: "chat", messages: [{ role: "user", content: "Say hello" }], tools: null, variables: {} },
    tenant: "default",
    maxTokens: 5,
    sampling: { ...GREEDY, ignoreEos: true },
    parseSpecial: null,
    stops: [],
    singleCall: false,
    slo: resolveSlo(classes, {
      slo: { ttft_ms: 5000, tpot_ms: 1000, ...slo },
      headers: {},
      modelClass: null,
    }),
    session: null,
    reasoning: null,
    thinkingTokens: null,
    ...changes,
  }
}

let ids = 0
export function jobOf(changes: Partial<Generation> = {}, choices = 1, slo: object = {}): Job {
  return {
    id: ++ids,
    generation: generation(changes, slo),
    ageUs: 1000,
    choices: Array.from({ length: choices }, (_, index) => ({ index, begun: null })),
  }
}

/** Keeps what it was told. */
export class Kept implements JobSink {
  readonly tokensOf: number[][] = []
  readonly text: string[] = []
  readonly ends: (JobEnd | undefined)[] = []
  readonly turned: number[] = []
  readonly starts: SeenStart[] = []
  /** Of the first choice: its tokens and its text, step by step. */
  readonly steps: { tokens: readonly number[]; text: string }[] = []
  readonly #over: Promise<void>
  #resolve!: () => void
  #left: number

  constructor(choices = 1) {
    this.#left = choices
    this.#over = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }
  tokens: JobSink["tokens"] = (choice, tokens, delta) => {
    expect(this.ends[choice], "tokens after the end").toBeUndefined()
    this.tokensOf[choice] = [...(this.tokensOf[choice] ?? []), ...tokens]
    if (choice === 0) this.steps.push({ tokens, text: (delta?.content ?? "") + (delta?.reasoning ?? "") })
    this.text[choice] = (this.text[choice] ?? "") + (delta?.content ?? "") + (delta?.reasoning ?? "")
  }
  started = (choice: number, start: SeenStart): void => {
    expect(this.tokensOf[choice], "a start after tokens").toBeUndefined()
    this.starts[choice] = start
  }
  turnedDown = (choice: number): void => {
    this.turned.push(choice)
  }
  end = (choice: number, end: JobEnd): void => {
    expect(this.ends[choice], "a second end").toBeUndefined()
    this.ends[choice] = end
    if (--this.#left === 0) this.#resolve()
  }
  async over(): Promise<(JobEnd | undefined)[]> {
    await this.#over
    return this.ends
  }
}

export interface SuiteHost {
  host: ReplicaHost
  /** After `host.close()`, if that was not called before. */
  close(): Promise<void>
}

/** `make`: a replica of the fake engine, not quicker than a millisecond a step, that is ready. */
export function hostSuite(name: string, make: () => Promise<SuiteHost>): void {
  describe(`replica host: ${name}`, () => {
    const made: SuiteHost[] = []
    const open = async (): Promise<ReplicaHost> => {
      const one = await make()
      made.push(one)
      return one.host
    }
    afterEach(async () => {
      for (const { host, close } of made.splice(0)) {
        await host.close()
        await close()
      }
    })

    test("says what it serves, and how it is", async () => {
      const host = await open()
      expect(host.state).toBe("ready")
      expect(host.info!.limits.contextTokens).toBeGreaterThan(0)
      expect(host.info!.vocabulary).toHaveLength(host.info!.model.vocabSize)
      await until(() => expect(host.digest()).not.toBeNull())
      const { snapshot, ageUs, engine } = host.digest() as Digest
      expect(snapshot.kvCapacityTokens).toBeGreaterThan(0)
      expect(ageUs).toBeGreaterThanOrEqual(0)
      expect(engine.state).toBe("ok")
    })

    test("computes a job: tokens with the text that they gave, then one end with its outcome", async () => {
      const host = await open()
      const sink = new Kept()
      host.submit(jobOf(), sink)
      const [end] = await sink.over()
      expect(end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: 5 } })
      expect(sink.tokensOf[0]).toHaveLength(5)
      const { vocabulary } = host.info!
      const spelled = Buffer.concat(sink.tokensOf[0]!.map((token) => vocabulary![token]!)).toString()
      expect(spelled).toContain(sink.text[0]!.trim())
      expect(sink.text[0]).not.toBe("")
      // Times count from arrival: clocks of two processes do not agree.
      if (end?.kind !== "finished") throw new Error("not finished")
      expect(end.outcome.arrivalUs).toBe(0)
      expect(end.outcome.firstTokenUs).toBeGreaterThanOrEqual(1000)
      expect(end.outcome.firstTokenUs).toBeLessThan(60e6)
    })

    test("says where the time of an answer went: in parts that add up, since its arrival", async () => {
      const host = await open()
      const sink = new Kept()
      host.submit({ ...jobOf(), ageUs: 250_000 }, sink)
      const [end] = await sink.over()
      if (end?.kind !== "finished") throw new Error("not finished")
      const { account, finishedUs, firstTokenUs } = end.outcome
      const sum = (parts: readonly number[]) => parts.reduce((all, us) => all + us, 0)
      expect(sum(account!.parts)).toBe(finishedUs)
      expect(sum(account!.toFirst!)).toBe(firstTokenUs)
      // What came before it was here is told apart.
      expect(account!.parts[TIME_PARTS.indexOf("before")]).toBeGreaterThanOrEqual(250_000)
    })

    test("computes every choice of a job, each with its own seed", async () => {
      const host = await open()
      const sink = new Kept(3)
      const sampling = { ...GREEDY, temperature: 1, seed: 7, ignoreEos: true }
      host.submit(jobOf({ sampling }, 3), sink)
      const ends = await sink.over()
      expect(ends.map((end) => end?.kind)).toEqual(["finished", "finished", "finished"])
      expect(sink.tokensOf.map((tokens) => tokens.length)).toEqual([5, 5, 5])
    })

    test("offers: yes while it can keep the SLO, no for one that cannot be kept, and nothing is taken", async () => {
      const host = await open()
      expect(await host.offer(jobOf(), 5000)).toMatchObject({ takes: true })
      expect(await host.offer(jobOf({}, 1, { ttft_ms: 1 }), 5000)).toMatchObject({ takes: false })
      const job = jobOf()
      const { promptTokens } = await host.offer(job, 5000)
      expect(promptTokens).toBeGreaterThan(0)
      const sink = new Kept()
      host.submit(job, sink)
      const [end] = await sink.over()
      expect(end).toMatchObject({ kind: "finished", usage: { promptTokens } })
    })

    test("what cannot be served fails with the error that its client is shown", async () => {
      const host = await open()
      const sink = new Kept()
      host.submit(jobOf({ maxTokens: 1_000_000 }), sink)
      const [end] = await sink.over()
      if (end?.kind !== "failed") throw new Error("not failed")
      expect(end.error).toMatchObject({ status: 400, code: "context_length_exceeded", param: "messages" })
      expect(end.error.message).toContain("maximum context length")
    })

    test("a full queue refuses: the job was not begun and can go elsewhere", async () => {
      const host = await open()
      const sinks = Array.from({ length: SUITE_MAX_QUEUE + 1 }, () => new Kept())
      for (const sink of sinks) host.submit(jobOf({ maxTokens: 50 }, 1, NO_SLO), sink)
      const last = (await sinks.at(-1)!.over())[0]
      expect(last).toMatchObject({ kind: "lost", reason: "refused" })
      for (const sink of sinks.slice(0, -1)) expect((await sink.over())[0]?.kind).toBe("finished")
    })

    test("a cancelled job ends as such, wherever it is; an unknown one is nothing", async () => {
      const host = await open()
      const early = jobOf({ maxTokens: 200 })
      const earlySink = new Kept()
      host.submit(early, earlySink)
      host.cancel(early.id)
      expect((await earlySink.over())[0]).toMatchObject({ kind: "cancelled" })
      const late = jobOf({ maxTokens: 900 })
      const lateSink = new Kept()
      host.submit(late, lateSink)
      await until(() => expect(lateSink.tokensOf[0]?.length).toBeGreaterThan(2))
      host.cancel(late.id)
      expect((await lateSink.over())[0]).toMatchObject({ kind: "cancelled" })
      host.cancel(123_456)
    })

    test("gives up a job that has no token out, without another word; not one that has", async () => {
      const host = await open()
      // Fills the batches: what comes after it waits.
      const running = new Kept()
      const first = jobOf({ maxTokens: 100 })
      host.submit(first, running)
      await until(() => expect(running.tokensOf[0]?.length).toBeGreaterThan(0))
      expect(await host.withdraw(first.id)).toBe(false)
      const sink = new Kept()
      const job = jobOf()
      host.submit(job, sink)
      const gone = await host.withdraw(job.id)
      await running.over()
      if (gone) expect([sink.ends, sink.tokensOf]).toEqual([[], []])
      else expect((await sink.over())[0]?.kind).toBe("finished")
      expect(await host.withdraw(987_654)).toBe(false)
    })

    describe("a job that has begun elsewhere", () => {
      const many = { maxTokens: 20 }
      /** A stream that nothing has stopped. */
      async function uninterrupted(host: ReplicaHost): Promise<Kept> {
        const sink = new Kept()
        host.submit(jobOf(many), sink)
        await sink.over()
        return sink
      }
      /** The first steps of a stream, a token every 10 ms, of which the last came 40 ms ago. */
      function begunBy({ steps, starts }: Kept, count: number): Begun {
        const told = steps.filter(({ tokens }) => tokens.length > 0).slice(0, count)
        const agoUs = (i: number) => 40_000 + 10_000 * (told.length - 1 - i)
        return {
          steps: told.map(({ tokens }, i) => ({ tokens, agoUs: agoUs(i) })),
          start: starts[0]!,
        }
      }
      function resumed(begun: Begun, changes: Partial<Generation> = many): Job {
        return { ...jobOf(changes), ageUs: 500_000, choices: [{ index: 0, begun }] }
      }

      test("goes on there: no token is lost or said twice, and its end tells of the whole", async () => {
        const host = await open()
        const whole = await uninterrupted(host)
        expect(whole.starts[0]).toMatchObject({ ttftUs: 5_000_000 })
        for (const cut of [1, 7, 19]) {
          const sink = new Kept()
          const begun = begunBy(whole, cut)
          const job = resumed(begun)
          await host.offer(job, 5000)
          host.submit(job, sink)
          const [end] = await sink.over()
          const before = whole.steps.slice(0, cut)
          expect([...before.flatMap(({ tokens }) => tokens), ...sink.tokensOf[0]!]).toEqual(whole.tokensOf[0])
          expect(before.map(({ text }) => text).join("") + sink.text[0]).toBe(whole.text[0])
          expect(sink.starts).toEqual([])
          if (end?.kind !== "finished" || whole.ends[0]?.kind !== "finished") throw new Error("not finished")
          const { promptTokens, cachedTokens } = whole.ends[0].usage
          expect(end).toMatchObject({
            reason: "length",
            usage: { promptTokens, cachedTokens, completionTokens: 20 },
          })
          expect(end.outcome).toMatchObject({
            outputTokens: 20,
            ttftUs: 5_000_000,
            promptTokens,
            preemptions: 1,
          })
          expect(end.outcome.firstTokenUs).toBe(460_000 - 10_000 * (cut - 1))
          expect(end.outcome.startedUs).toBe(whole.starts[0]!.queuedUs)
          // From its last token there to its first here.
          expect(end.outcome.maxGapUs).toBeGreaterThanOrEqual(40_000)
        }
      })

      test("whose tokens are all out has but its end to tell", async () => {
        const host = await open()
        const whole = await uninterrupted(host)
        const sink = new Kept()
        host.submit(resumed(begunBy(whole, 20)), sink)
        const [end] = await sink.over()
        expect(sink.tokensOf[0] ?? []).toEqual([])
        expect(end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: 20 } })
        if (end?.kind !== "finished") throw new Error("not finished")
        expect(end.outcome.finishedUs).toBe(460_000)
      })

      test("finds a place where new ones find none", async () => {
        const host = await open()
        const whole = await uninterrupted(host)
        const sinks = Array.from({ length: SUITE_MAX_QUEUE }, () => new Kept())
        for (const sink of sinks) host.submit(jobOf({ maxTokens: 100 }), sink)
        const sink = new Kept()
        host.submit(resumed(begunBy(whole, 5)), sink)
        expect((await sink.over())[0]).toMatchObject({ kind: "finished", usage: { completionTokens: 20 } })
        for (const other of sinks) expect((await other.over())[0]?.kind).toBe("finished")
      })

      test("was offered here before another replica began it", async () => {
        const host = await open()
        const whole = await uninterrupted(host)
        const job = jobOf(many)
        await host.offer(job, 5000)
        const sink = new Kept()
        host.submit({ ...job, ageUs: 500_000, choices: [{ index: 0, begun: begunBy(whole, 12) }] }, sink)
        expect((await sink.over())[0]?.kind).toBe("finished")
        expect(sink.tokensOf[0]).toEqual(whole.tokensOf[0]!.slice(12))
      })

      test.each([
        ["no token of this model", [[7, 123_456_789]], 1],
        ["tokens after its end", [[70], [258], [71]], 1],
        ["no time at which they came", [[70]], Infinity],
      ])("but has %s fails cleanly", async (_, tokens, agoUs) => {
        const host = await open()
        const sink = new Kept()
        host.submit(resumed({ steps: tokens.map((one) => ({ tokens: one, agoUs })) }), sink)
        const [end] = await sink.over()
        if (end?.kind !== "failed") throw new Error("not failed")
        expect(end.error.message).toContain("cannot go on here")
        expect(await host.offer(jobOf(), 5000)).toMatchObject({ takes: true })
      })

      test("without a token out is one that has not", async () => {
        const host = await open()
        const whole = await uninterrupted(host)
        const sink = new Kept()
        host.submit(resumed({ steps: [] }), sink)
        await sink.over()
        expect(sink.tokensOf).toEqual(whole.tokensOf)
        expect(sink.starts).toHaveLength(1)
      })
    })

    test("tells what it does, for metrics", async () => {
      const host = await open()
      const seen: Observed[] = []
      host.onObserved((observed) => seen.push(observed))
      const sink = new Kept()
      host.submit(jobOf(), sink)
      await sink.over()
      await until(() => {
        const effects = seen.flatMap((one) => one.effects)
        const tokens = effects.flatMap((effect) => (effect.type === "token" ? effect.count : []))
        expect(tokens.reduce((sum, n) => sum + n, 0)).toBe(5)
        expect(effects.filter(({ type }) => type === "finished")).toHaveLength(1)
        expect(seen.flatMap((one) => one.steps).length).toBeGreaterThan(0)
      })
    })

    test("drains: what it has ends, what comes is refused", async () => {
      const host = await open()
      const sink = new Kept()
      host.submit(jobOf({ maxTokens: 30 }), sink)
      await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
      const drained = host.drain()
      const refused = new Kept()
      host.submit(jobOf(), refused)
      expect((await refused.over())[0]).toMatchObject({ kind: "lost", reason: "refused" })
      expect(await host.offer(jobOf(), 1000)).toMatchObject({ takes: false })
      await drained
      expect((await sink.over())[0]?.kind).toBe("finished")
    })

    test("closed with jobs live: each has its end", async () => {
      const host = await open()
      const sink = new Kept()
      host.submit(jobOf({ maxTokens: 500 }), sink)
      await until(() => expect(sink.tokensOf[0]?.length).toBeGreaterThan(0))
      const states: string[] = []
      host.onState((state) => states.push(state))
      await host.close()
      expect(["cancelled", "lost"]).toContain((await sink.over())[0]?.kind)
      expect(states.at(-1)).toBe("closed")
    })
  })
}
