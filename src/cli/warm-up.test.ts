/** Made-up requests before the first one: they come through, in each kind of process, and leave nothing behind. */
import { expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import { warmUpGateway, warmUpParent, warmUpServer } from "./warm-up.ts"
import { bodyOf, often, warmUpWorker } from "./warm-up-replica.ts"

const classes = defaultSloClasses()
const optionsOf = (policy: PolicyName) => ({ classes, policy, policyOptions: {} })

const kinds = { warmUpServer, warmUpParent, warmUpGateway, warmUpWorker }

test.each(Object.entries(kinds))("%s serves its requests and is gone", async (_, warmUp) => {
  // Timers, sockets, ports. What is on its way at this moment is none of these.
  const open = () => process.getActiveResourcesInfo().filter((kind) => kind !== "Immediate").length
  const before = open()
  expect(await warmUp(optionsOf("slos-serve"), 50)).toBeGreaterThan(1)
  await expect.poll(open, { timeout: 5000 }).toBeLessThanOrEqual(before)
})

test.each(POLICY_NAMES)("policy %s warms up as well", async (policy) => {
  expect(await warmUpServer(optionsOf(policy), 1)).toBeGreaterThan(1)
})

test("it ends after its time, or after enough requests, whichever is first", async () => {
  let ran = 0
  const run = async () => {
    ran++
  }
  expect(await often(Number.POSITIVE_INFINITY, run)).toBe(ran)
  expect(ran).toBeGreaterThan(100)
  expect(await often(0, run)).toBe(0)
})

test("requests are of several kinds and lengths", () => {
  const bodies = Array.from({ length: 40 }, (_, n) => bodyOf(n))
  const kindsSeen = new Set(bodies.map(({ path, body }) => `${path} ${(body as { stream: boolean }).stream}`))
  expect(kindsSeen.size).toBeGreaterThanOrEqual(3)
  expect(new Set(bodies.map(({ body }) => JSON.stringify(body).length)).size).toBeGreaterThan(20)
})
