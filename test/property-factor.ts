/** PROPERTY_FACTOR=n: property tests draw n times as much as they say. What chance breaks once in thousands of draws is found
 * here, not by a commit that it turns down. */
import type { Parameters as Settings } from "fast-check"
import { vi } from "vitest"

vi.mock("fast-check", async (importOriginal) => {
  const given = await importOriginal<typeof import("fast-check")>()
  const factor = Number(process.env.PROPERTY_FACTOR)
  const usual = given.readConfigureGlobal().numRuns ?? 100
  // A bound on their time would end them before they have drawn so much.
  const more = <T>({ interruptAfterTimeLimit: _, ...settings }: Settings<T> = {}): Settings<T> => ({
    ...settings,
    numRuns: factor * (settings.numRuns ?? usual),
  })
  const assert = (property: unknown, settings?: Settings) => given.assert(property as never, more(settings))
  return { ...given, assert, default: { ...given.default, assert } }
})
