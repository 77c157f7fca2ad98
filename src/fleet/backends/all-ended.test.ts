/** Many requests that end at once: twins are run forward once for all of them, not once for each. */
import { Agent } from "undici"
import { afterEach, expect, test, vi } from "vitest"
import { specOf } from "../../core/testing.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { ENGINE_RULES } from "../engine-rules.ts"
import { EngineRun } from "../engine-run.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { type LoadWord, SharedLoad } from "./shared-load.ts"
import { FakeBackend } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

/** How often a twin is run forward by it. */
async function runsOf(action: () => unknown): Promise<number> {
  const ran = vi.spyOn(EngineRun.prototype, "catchUp")
  await action()
  const count = ran.mock.calls.length
  ran.mockRestore()
  return count
}

const [SENT_US, SEEN_US, OVER_US] = [1e6, 1.2e6, 1.21e6]
const spec = (promptTokens: number): TwinSpec => specOf(1, { promptTokens, arrivalUs: SENT_US })

/** A gateway that knows of so many of each of two others; half of them have begun to answer. It has some of its own. */
function gateway(each: number) {
  const twin = new Twin({ rules: ENGINE_RULES.vllm })
  const load = new SharedLoad({
    ...{ twin, clockUs: 0, saw: () => {}, sentElsewhere: () => {}, tellSoon: () => {} },
  })
  for (const id of [1, 2, 3]) twin.sent(id, spec(700 + id), SENT_US)
  for (const from of [5, 6])
    for (let id = 1; id <= each; id++)
      load.hear([{ type: "sent", id, spec: spec(500 + id), forced: false }], from, SENT_US)
  for (const from of [5, 6])
    for (let id = 1; id <= each; id += 2) load.hear([{ type: "tokens", id, tokens: 3 }], from, SEEN_US)
  twin.tokens(1, 1, SEEN_US)
  return { twin, load }
}

const ends = (each: number, stopped: (id: number) => boolean): LoadWord[] =>
  Array.from({ length: each }, (_, i) => ({ type: "ended", id: i + 1, stopped: stopped(i + 1) }))

/** All that shows of it, then and later. */
function seenOf({ twin }: ReturnType<typeof gateway>) {
  const then = [...twin.underWay(OVER_US)]
  const offers = [100, 5000].map((tokens) => twin.offer(spec(tokens), OVER_US))
  for (let i = 1; i <= 40; i++) twin.tokens(1, 1, OVER_US + i * 25_000)
  const lateUs = OVER_US + 2e6
  return { then, offers, later: [...twin.underWay(lateUs)], at: twin.snapshot(lateUs), fit: twin.fit.model }
}

test("a gateway that goes: as often for a few as for many, and all is as if they had ended one by one", async () => {
  for (const each of [8, 200]) {
    const { load } = gateway(each)
    // To see what there is, and to end it.
    expect(await runsOf(() => load.left(5, OVER_US))).toBe(2)
  }
  const [together, oneByOne] = [gateway(50), gateway(50)]
  together.load.left(5, OVER_US)
  const alone = ends(50, () => false)
  const hearAll = () => {
    for (const word of alone) oneByOne.load.hear([word], 5, OVER_US)
  }
  expect(await runsOf(hearAll)).toBe(50)
  expect(together.twin.inFlight).toBe(53)
  expect(seenOf(together)).toEqual(seenOf(oneByOne))
})

test("what a gateway says of many that ended, by themselves or not, whatever it says between", async () => {
  const [together, oneByOne] = [gateway(50), gateway(50)]
  const words = ends(50, (id) => id % 3 === 0)
  const between: LoadWord = { type: "tokens", id: 9, tokens: 2 }
  const after: LoadWord = { type: "tokens", id: 9, tokens: 50 }
  words.splice(3, 0, between)
  words.splice(20, 0, after)
  expect(await runsOf(() => together.load.hear(words, 6, OVER_US))).toBe(1)
  for (const word of words) oneByOne.load.hear([word], 6, OVER_US)
  expect(seenOf(together)).toEqual(seenOf(oneByOne))
})

test("one that ended and is sent again in one message is there", () => {
  const { twin, load } = gateway(2)
  const again: LoadWord = { type: "sent", id: 1, spec: spec(900), forced: false }
  load.hear([...ends(2, () => false), again], 5, OVER_US)
  expect(twin.inFlight).toBe(3 + 2 + 1)
})

test.each(["giveUp", "close"] as const)("a backend of which all ends (%s)", async (how) => {
  const backend = await FakeBackend.open({ kind: "vllm" })
  opened.push(backend)
  backend.misbehave = () => true
  const dispatcher = new Agent()
  opened.push(dispatcher)
  const host = new RemoteHost({
    ...{ name: "far", url: backend.url, kind: BACKEND_KINDS.vllm, apps: 20, dispatcher, probeMs: 60_000 },
    timeouts: { connectMs: 60_000, firstByteMs: 60_000, silenceMs: 60_000 },
  })
  opened.push(host)
  await until(() => expect(host.state).toBe("ready"))
  const sinks = Array.from({ length: 30 }, (_, i) => {
    const sink = new Kept(1)
    host.submit({ ...jobOf({ maxTokens: 50 }), id: i + 1 }, sink)
    return sink
  })
  await until(() => expect(backend.asked).toHaveLength(30))
  expect(host.twin.inFlight).toBe(30)
  expect(await runsOf(() => host[how]("it is asked to"))).toBe(1)
  expect(host.twin.inFlight).toBe(0)
  const ended = await Promise.all(sinks.map((sink) => sink.over()))
  for (const [end] of ended) expect(end).toMatchObject({ kind: how === "close" ? "cancelled" : "lost" })
})
