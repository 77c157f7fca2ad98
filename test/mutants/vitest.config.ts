/** The tests that the mutation tester runs: those of the core that take a moment. Whole workloads under every policy would
 * take half a minute for each of thousands of mutants. */
import { defineConfig } from "vitest/config"

/** Fewer tests are quicker where a folder's own say enough: MUTANTS_TESTS=src/core/kv. */
const TESTS = process.env.MUTANTS_TESTS ?? "src/core"
const WORKLOADS = ["policy.suite", "best-effort", "sessions"]

export default defineConfig({
  test: {
    include: TESTS.split(",").map((place) => (place.endsWith(".ts") ? place : `${place}/**/*.test.ts`)),
    exclude: WORKLOADS.map((name) => `src/core/policy/${name}.test.ts`),
    setupFiles: ["test/mutants/few-runs.ts"],
    env: { PROPERTY_RUNS: "25" },
    isolate: false,
    testTimeout: 20_000,
  },
})
