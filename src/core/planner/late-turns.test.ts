/** Which tenants have no turn, since late requests of another wait. */
import { expect, test, vi } from "vitest"
import { Tenants } from "../learn/tenants.ts"
import type { RequestSpec } from "../protocol.ts"
import { contextOf, liveOf } from "../testing.ts"
import { isOutOfTurn, mostServedInTurn } from "./late-turns.ts"

/** Usually 10 tokens: 160 are even, and four times that is far. */
const USUAL_TOKENS = 10
const FAR_TOKENS = 640

/** Tenants 0, 1 and 2, each with a request here, of which the first was served so many tokens. */
function given(servedTokens: number) {
  const tenants = new Tenants([1, 1, 2], USUAL_TOKENS)
  for (const tenant of [0, 1, 2]) tenants.arrived({ tenant })
  const request = liveOf(99, { promptTokens: servedTokens })
  tenants.served(request, { position: 0, tokens: servedTokens } as never, 0)
  return contextOf(undefined, { tenants })
}
const late = (id: number, tenant: number, changes: Partial<RequestSpec> = {}) =>
  Object.assign(liveOf(id, { tenant, ...changes }), { tier: "bestEffort" as const })

test("one that was served far more than another whose late requests wait", () => {
  const [even, far] = [given(FAR_TOKENS), given(FAR_TOKENS + 1)]
  const isOut = (context: typeof far, waiting: ReturnType<typeof late>[], tenant: number) =>
    isOutOfTurn(liveOf(1, { tenant }), mostServedInTurn(waiting, context), context)
  expect(isOut(far, [late(2, 1)], 0)).toBe(true)
  expect(isOut(even, [late(2, 1)], 0)).toBe(false)
  expect(isOut(far, [late(2, 1)], 1)).toBe(false)
  expect(isOut(far, [late(2, 1)], 2)).toBe(false)
  // The least served decides, wherever it stands.
  expect(isOut(far, [late(2, 0), late(3, 0), late(4, 1), late(5, 0)], 0)).toBe(true)
  // Its own late requests hold up nothing.
  expect(isOut(far, [late(2, 0)], 0)).toBe(false)
  expect(isOut(far, [], 0)).toBe(false)
})

test("however many wait, of each tenant one is looked at, and none where all were served about the same", () => {
  const waiting = Array.from({ length: 3000 }, (_, i) => late(100 + i, 1 + (i % 2)))
  const looks = (context: ReturnType<typeof given>, all = waiting) => {
    const holds = vi.spyOn(context.kv, "holds")
    mostServedInTurn(all, context)
    return holds.mock.calls.length
  }
  expect(looks(given(FAR_TOKENS + 1))).toBe(2)
  expect(looks(given(FAR_TOKENS + 1), [...waiting, late(1, 0)])).toBe(3)
  expect(looks(given(FAR_TOKENS))).toBe(0)
})

test("not for what asks for no SLO, nor for what has begun: these are served from what is left", () => {
  const context = given(FAR_TOKENS + 1)
  expect(mostServedInTurn([late(2, 1, { tier: "bestEffort" })], context)).toBe(Infinity)
  const begun = late(2, 1)
  context.kv.attach(begun.id, [], -1, null)
  expect(mostServedInTurn([begun], context)).toBe(Infinity)
  expect(mostServedInTurn([begun, late(3, 1)], context)).toBe(FAR_TOKENS)
})

test("what was promised, and what has begun, goes on", () => {
  const context = given(FAR_TOKENS + 1)
  const most = mostServedInTurn([late(2, 1)], context)
  const request = liveOf(1, { tenant: 0 })
  expect(isOutOfTurn(request, most, context)).toBe(true)
  expect(isOutOfTurn(Object.assign(liveOf(1), { admitted: true }), most, context)).toBe(false)
  context.kv.attach(request.id, [], -1, null)
  expect(isOutOfTurn(request, most, context)).toBe(false)
})

test("where one tenant alone has requests there are no turns", () => {
  const tenants = new Tenants([], USUAL_TOKENS)
  tenants.arrived({ tenant: 1 })
  expect(mostServedInTurn([late(2, 1)], contextOf(undefined, { tenants }))).toBe(Infinity)
})
