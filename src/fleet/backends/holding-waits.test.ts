/** What waits in the gateway comes to an end of its waiting, whatever was learnt of the engine. */
import fc from "fast-check"
import { afterEach, describe, expect, test, vi } from "vitest"
import { specOf } from "../../core/testing.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { ENGINE_RULES } from "../engine-rules.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import type { Course } from "./course.ts"
import { Holding, type Later } from "./holding.ts"
import { Judge } from "./judge.ts"

afterEach(() => vi.useRealTimers())

function courseOf(spec: TwinSpec, nowUs: number): Course {
  const judge = new Judge(
    spec,
    nowUs,
    () => 0,
    () => {},
  )
  const [job, sink] = [jobOf(), new Kept()]
  return {
    ...{ id: spec.id, job, choice: job.choices[0]!, sink, judge, spec },
    ...{ begunTokens: 0, sinceUs: nowUs, abort: null, begun: false },
  }
}

/** A request that is taken in time, at once, and has much to compute. */
const NOW = {
  ...{ takes: true, firstTokenUs: 0, queuesUs: 0, addsUs: 1e6 },
  ...{ startsNext: true, mayStartNext: true, nextStepUs: 0 },
  ...{ keepsOthers: true, leavesRoom: true },
}

const specWith = (id: number, changes: Partial<TwinSpec>, ttftUs: number) =>
  specOf(id, { maxOutputTokens: 500, ...changes, slo: { ...specOf(id).slo, ttftUs } })

/** How an engine was seen, request by request: one after another, or several at once, in seats that nothing is known of. */
interface Past {
  atOnce: number
  seats: number
  entryUs: number
  stepUs: number
  promptTokens: number
  outputTokens: number
}
const past: fc.Arbitrary<Past> = fc.record({
  atOnce: fc.constantFrom(1, 4, 12),
  seats: fc.constantFrom(1, 4, 64),
  entryUs: fc.integer({ min: 100, max: 400_000 }),
  stepUs: fc.integer({ min: 1000, max: 200_000 }),
  promptTokens: fc.integer({ min: 1, max: 2000 }),
  outputTokens: fc.integer({ min: 1, max: 60 }),
})

/** Lets the twin see it. When it is over. */
function see(twin: Twin, { atOnce, seats, entryUs, stepUs, ...one }: Past, fromUs: number): number {
  const { promptTokens, outputTokens } = one
  const sights: { atUs: number; show: () => void }[] = []
  let endUs = fromUs
  for (let n = 0; n < atOnce; n++) {
    const id = fromUs + n
    twin.sent(id, specWith(id, { promptTokens, arrivalUs: fromUs }, 1e9), fromUs)
    // Those that find no seat wait for all that have one.
    let atUs = fromUs + entryUs + stepUs + Math.floor(n / seats) * outputTokens * stepUs
    for (let token = 0; token < outputTokens; token++, atUs += stepUs) {
      const thenUs = atUs
      sights.push({ atUs, show: () => twin.tokens(id, 1, thenUs) })
    }
    const thenUs = atUs
    sights.push({ atUs, show: () => twin.ended(id, thenUs, false) })
    endUs = Math.max(endUs, atUs)
  }
  for (const { show } of sights.sort((a, b) => a.atUs - b.atUs)) show()
  return endUs + 1000
}

test("an idle engine is given what comes, whatever was learnt of it", () => {
  const held = fc.record({
    promptTokens: fc.constantFrom(1, 500, 20_000),
    ttftUs: fc.constantFrom(1, 100_000, 60_000_000, Infinity),
    tier: fc.constantFrom("slo" as const, "bestEffort" as const),
  })
  fc.assert(
    fc.property(
      fc.array(past, { minLength: 1, maxLength: 12 }),
      held,
      fc.constantFrom(1000, Infinity),
      (pasts, { ttftUs, ...changes }, kvTokens) => {
        const twin = new Twin({ rules: { ...ENGINE_RULES.vllm, kvTokens } })
        let nowUs = 0
        for (const one of pasts) nowUs = see(twin, one, nowUs)
        const sent: Course[] = []
        const holding = new Holding<Course>(twin, () => nowUs, {
          send: (course) => sent.push(course),
          turnDown: () => {},
        })
        holding.open()
        const id = nowUs + 1
        holding.add(courseOf(specWith(id, { ...changes, arrivalUs: nowUs }, ttftUs), nowUs))
        holding.shut()
        expect(sent.map((course) => course.id)).toEqual([id])
      },
    ),
    { numRuns: 300 },
  )
})

test("an engine whose way in is long, and seldom as long as believed, still queues nothing that comes alone", () => {
  const twin = new Twin({ rules: ENGINE_RULES.vllm })
  const common = { seats: 4, entryUs: 150_000, stepUs: 20_000, promptTokens: 20, outputTokens: 20 }
  let nowUs = 0
  for (let round = 0; round < 6; round++)
    for (const atOnce of [1, 12]) nowUs = see(twin, { ...common, atOnce }, nowUs)
  expect(twin.fit.confident).toBe(true)
  // Were it scaled as the queue is, the way in alone would be taken for a queue.
  const ratio = twin.snapshot(nowUs).calibration[1]!
  expect(twin.fit.entryUs * (ratio - 1)).toBeGreaterThan(30_000)
  const alone = twin.offer(specWith(nowUs, { promptTokens: 20, arrivalUs: nowUs }, 60_000_000), nowUs)
  expect(alone.queuesUs).toBe(0)
})

describe("a pause that the engine asked for", () => {
  /** An engine that was never seen, and a clock behind the timers' by so much. */
  function paused(behindUs: number) {
    vi.useFakeTimers({ now: 0 })
    const nowUs = () => Math.max(0, Date.now() * 1000 - behindUs)
    const sent: Course[] = []
    const sink = { send: (course: Course) => sent.push(course), turnDown: () => {} }
    const holding = new Holding(new Twin({ rules: ENGINE_RULES.vllm }), nowUs, sink)
    holding.open()
    holding.pause(50_000)
    holding.add(courseOf(specWith(1, {}, 60_000_000), 0))
    return { holding, sent }
  }

  test("ends for what is held, also where a timer fires before its time", async () => {
    const { sent } = paused(900)
    await vi.advanceTimersByTimeAsync(50)
    expect(sent).toEqual([])
    await vi.advanceTimersByTimeAsync(2)
    expect(sent).toHaveLength(1)
  })

  test("is not cut short, nor made to last for ever, by a shorter one", async () => {
    const { holding, sent } = paused(0)
    await vi.advanceTimersByTimeAsync(20)
    holding.pause(10_000)
    await vi.advanceTimersByTimeAsync(29)
    expect(sent).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(sent).toHaveLength(1)
  })
})

/** A twin that says what `offer` is set to, best effort for which there is no room at first; and a clock that is moved by hand. */
function full() {
  const clock = { nowUs: 0, wakes: [] as { atUs: number; fn: () => void }[] }
  const offer = { ...NOW, leavesRoom: false }
  const twin = new Twin({ rules: ENGINE_RULES.vllm })
  vi.spyOn(twin, "offer").mockImplementation(() => ({ ...offer }))
  vi.spyOn(twin, "idle", "get").mockReturnValue(false)
  vi.spyOn(twin.fit, "confident", "get").mockReturnValue(true)
  const sent: { id: number; atUs: number }[] = []
  const later: Later = (us, fn) => {
    const wake = { atUs: clock.nowUs + us, fn }
    clock.wakes.push(wake)
    return () => void clock.wakes.splice(clock.wakes.indexOf(wake), 1)
  }
  const sink = {
    send: ({ id }: Course) => sent.push({ id, atUs: clock.nowUs }),
    turnDown: () => {},
  }
  const holding = new Holding<Course>(twin, () => clock.nowUs, sink, later)
  holding.open()
  const add = (id: number, tier: "slo" | "bestEffort", changes: Partial<TwinSpec> = {}) =>
    holding.add(courseOf(specWith(id, { tier, arrivalUs: clock.nowUs, ...changes }, 60_000_000), clock.nowUs))
  const until = (us: number) => {
    for (let next = clock.wakes[0]; next !== undefined && next.atUs <= us; next = clock.wakes[0]) {
      clock.wakes.shift()
      clock.nowUs = Math.max(clock.nowUs, next.atUs)
      next.fn()
    }
    clock.nowUs = us
  }
  /** Another process of the gateway sends one like those that `add` adds. */
  const elsewhere = (id: number, tier: "slo" | "bestEffort", forced: boolean) =>
    holding.sentElsewhere(specWith(id, { tier, arrivalUs: clock.nowUs }, 60_000_000), forced)
  return { offer, sent, add, until, twin, elsewhere }
}

describe("best effort for which there is no room", () => {
  test.each(["keepsOthers", "leavesRoom"] as const)("waits until there is (%s)", (said) => {
    const { offer, sent, add, until } = full()
    Object.assign(offer, { keepsOthers: true, leavesRoom: true, [said]: false })
    add(1, "bestEffort")
    until(5_000_000)
    expect(sent).toEqual([])
    offer[said] = true
    until(5_200_000)
    expect(sent.map(({ id }) => id)).toEqual([1])
  })

  test("lets promises by", () => {
    const { sent, add, until } = full()
    add(1, "bestEffort")
    add(2, "slo")
    until(1_000_000)
    expect(sent).toEqual([{ id: 2, atUs: 0 }])
  })

  test("waits where it is late and leaves no time for a promise like the latest, as long as there was one lately", () => {
    const { offer, sent, add, until, twin } = full()
    const leaves = { first: true, next: true }
    vi.spyOn(twin, "offer").mockImplementation(({ tier }, _nowUs, held) =>
      held?.before.length === 1
        ? { ...offer, takes: leaves.next, leavesRoom: true }
        : { ...offer, takes: leaves.first, leavesRoom: true, firstTokenUs: tier === "slo" ? 0 : 1 },
    )
    until(70_000_000)
    add(1, "slo")
    leaves.next = false
    // One is late, one may still be in time: that goes.
    add(2, "bestEffort", { arrivalUs: 0 })
    until(75_000_000)
    expect(sent.map(({ id }) => id)).toEqual([1])
    leaves.next = true
    until(75_200_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2])
    leaves.next = false
    add(3, "bestEffort")
    expect(sent.map(({ id }) => id)).toEqual([1, 2, 3])
    // Without a promise for a minute there is nothing to leave time for.
    add(4, "bestEffort", { arrivalUs: 0 })
    until(99_900_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2, 3])
  })

  test("waits where it is late and leaves no time for a promise of another process", () => {
    const { offer, sent, add, until, twin, elsewhere } = full()
    vi.spyOn(twin, "offer").mockImplementation((_spec, _nowUs, held) => ({
      ...{ ...offer, leavesRoom: true },
      takes: held?.before.length !== 1,
    }))
    until(70_000_000)
    elsewhere(11, "slo", false)
    add(1, "bestEffort", { arrivalUs: 0 })
    until(75_000_000)
    expect(sent).toEqual([])
  })

  test("goes out one by one, the slower the engine reads prompts the more rarely", () => {
    const { sent, add, until, twin } = full()
    vi.spyOn(twin, "zeroLoadPrefillUs").mockImplementation((tokens) => tokens * 10_000)
    for (const id of [1, 2, 3]) add(id, "bestEffort", { promptTokens: 100 })
    until(100_000_000)
    const [first, second, third] = sent.map(({ atUs }) => atUs) as [number, number, number]
    // A second each: a twentieth of the time.
    expect(second - first).toBeGreaterThanOrEqual(20_000_000)
    expect(second - first).toBeLessThan(20_200_000)
    expect(third - second).toBeGreaterThanOrEqual(20_000_000)
  })

  test("goes out of all processes together no more often: two that go at one moment are followed by two pauses", () => {
    const { sent, add, until, elsewhere } = full()
    for (const id of [1, 2]) add(id, "bestEffort")
    until(29_500_000)
    elsewhere(11, "bestEffort", true)
    // What harms no promise, or was promised, takes nothing of it.
    elsewhere(12, "bestEffort", false)
    elsewhere(13, "slo", false)
    until(31_400_000)
    expect(sent).toEqual([])
    until(31_700_000)
    expect(sent.map(({ id }) => id)).toEqual([1])
    elsewhere(14, "bestEffort", true)
    until(35_400_000)
    expect(sent).toHaveLength(1)
    until(35_700_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2])
  })

  test("goes out in the end all the same, one by one", () => {
    const { sent, add, until } = full()
    for (const id of [1, 2, 3]) add(id, "bestEffort")
    until(29_900_000)
    expect(sent).toEqual([])
    until(40_000_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2, 3])
    const [first, second, third] = sent.map(({ atUs }) => atUs) as [number, number, number]
    expect(first).toBeLessThan(30_200_000)
    expect(second - first).toBeGreaterThanOrEqual(2_000_000)
    expect(third - second).toBeGreaterThanOrEqual(2_000_000)
    expect(third).toBeLessThan(35_000_000)
  })
})

describe("steps that begin sooner than is believed", () => {
  /** When next asked, so long after, the step that was waited for has begun, and another one is waited for. */
  function missed(queuesUs: number) {
    const all = full()
    Object.assign(all.offer, { ...NOW, queuesUs })
    return all
  }

  test("do not begin without what is held for ever: all that fits into one goes", () => {
    const { offer, sent, add, until } = missed(100_000)
    for (const id of [1, 2, 3]) add(id, id === 3 ? "bestEffort" : "slo")
    until(299_000)
    expect(sent).toEqual([])
    until(380_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2, 3])
    // The next one is held as the first was.
    add(4, "slo")
    until(600_000)
    expect(sent).toHaveLength(3)
    offer.queuesUs = 0
    until(700_000)
    expect(sent).toHaveLength(4)
  })

  test("are waited for as before where one came when it was to come", () => {
    const { offer, sent, add, until } = missed(100_000)
    for (const id of [1, 2]) add(id, "slo")
    until(250_000)
    offer.queuesUs = 0
    const send = vi.spyOn(sent, "push").mockImplementationOnce((one) => {
      offer.queuesUs = 100_000
      sent[0] = one
      return 1
    })
    until(400_000)
    expect(sent.map(({ id }) => id)).toEqual([1])
    send.mockRestore()
    until(550_000)
    expect(sent).toHaveLength(1)
    until(700_000)
    expect(sent).toHaveLength(2)
  })

  test("go on without what has others before it", () => {
    const { offer, sent, add, until } = missed(100_000)
    offer.startsNext = false
    add(1, "slo")
    until(5_000_000)
    expect(sent).toEqual([])
  })
})

describe("what adds next to nothing to a step", () => {
  /** A step that can end 200 ms from the start, and is expected to end later. */
  function light() {
    const all = full()
    const { twin, offer } = all
    Object.assign(offer, { ...NOW, queuesUs: 300_000, addsUs: 1000 })
    vi.spyOn(twin, "offer").mockImplementation((_spec, nowUs) => ({
      ...offer,
      nextStepUs: 200_000 - nowUs,
    }))
    return all
  }

  test("is sent shortly before the next one can begin", () => {
    const { sent, add, until } = light()
    for (const id of [1, 2]) add(id, id === 1 ? "slo" : "bestEffort")
    until(165_000)
    expect(sent).toEqual([])
    until(175_000)
    expect(sent.map(({ id }) => id)).toEqual([1, 2])
  })

  test("is held where it would not begin with that one, or has company that adds much", () => {
    for (const changes of [{ mayStartNext: false }, { addsUs: 31_000 }]) {
      const { offer, sent, add, until } = light()
      Object.assign(offer, changes)
      add(1, "slo")
      until(250_000)
      expect(sent).toEqual([])
    }
  })
})
