/** What is run through before the first engine: each policy plans all of it, in the time that it may take. */
import { expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { warmUp } from "./warm-up.ts"

const options = { classes: defaultSloClasses(), policyOptions: {} }

test.each(POLICY_NAMES)("%s plans all of it, as for an engine", (policy) => {
  expect(warmUp({ ...options, policy }, 60_000)).toBe(600)
})

test("no longer than it may take", () => {
  expect(warmUp({ ...options, policy: "slos-serve" }, 0)).toBe(0)
})
