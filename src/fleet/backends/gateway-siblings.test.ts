/** Two gateways of one address before the same engines: what one does the other knows. */
import { afterEach, expect, test } from "vitest"
import { until } from "../../serve/until-testing.ts"
import { linked } from "../../siblings/testing.ts"
import { openTestGateway } from "./gateway-testing.ts"
import { FakeBackend, type FakeOptions } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

async function pair(options: FakeOptions, engines = 3) {
  const backends: FakeBackend[] = []
  for (let i = 0; i < engines; i++) backends.push(await FakeBackend.open(options))
  opened.push(...backends)
  const { hub, all } = linked(2)
  const gateways = []
  for (const siblings of all)
    gateways.push(
      await openTestGateway(
        backends.map(({ url }) => url),
        siblings,
      ),
    )
  opened.push(...gateways)
  /** What the one of that number told so far is heard by the other. */
  const isHeard = (by: number) =>
    new Promise<void>((resolve) => {
      all[1 - by]!.onTold("all before", () => resolve())
      all[by]!.tellSoon("all before", () => null)
    })
  return { backends, gateways, hub, isHeard }
}

const LONG = "You are a careful assistant that answers in few words. ".repeat(60)

test("the rounds of a session go where its first was sent, whichever gateway they come to", async () => {
  const { backends, gateways, isHeard } = await pair({ words: 2 })
  for (let session = 0; session < 6; session++) {
    const before = backends.map(({ asked }) => asked.length)
    const messages = [{ role: "user" as const, content: `${session} ${LONG}` }]
    for (let round = 0; round < 4; round++) {
      const { openai } = gateways[round % 2]!
      const body = {
        model: "ours",
        messages,
        slo: { session: `s${session}`, ttft_ms: 60_000, tpot_ms: 10_000 },
      }
      const { choices } = await openai.chat.completions.create(body as never)
      messages.push(choices[0]!.message as never, { role: "user", content: "And then?" })
      await isHeard(round % 2)
    }
    const rounds = backends.map(({ asked }, i) => asked.length - before[i]!)
    expect(rounds.toSorted()).toEqual([0, 0, 4])
  }
})

test("each sees the load of the other at once, and that it is over", async () => {
  const { gateways, hub } = await pair({ words: 30, wordMs: 20 }, 1)
  const [one, other] = gateways
  const messages = [{ role: "user" as const, content: "hi" }]
  const asked = Array.from({ length: 3 }, () =>
    one!.openai.chat.completions.create({ model: "ours", messages }),
  )
  await until(() => expect(other!.front.snapshot().running).toBe(3))
  expect(one!.front.snapshot().running).toBe(3)
  await Promise.all(asked)
  await until(() => expect(other!.front.snapshot().running).toBe(0))

  const again = one!.openai.chat.completions.create({ model: "ours", messages })
  await until(() => expect(other!.front.snapshot().running).toBe(1))
  hub.left(0)
  await again
  await until(() => expect(other!.front.snapshot().running).toBe(0))
})
