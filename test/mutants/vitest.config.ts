/** The tests that the mutation tester runs: those of the core that take a moment. The long ones (whole workloads of every
 * policy) would take half a minute for each of thousands of mutants. */
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["src/core/**/*.test.ts"],
    exclude: ["src/core/policy/policy.suite.test.ts", "src/core/policy/best-effort.test.ts"],
    setupFiles: ["test/mutants/few-runs.ts"],
    isolate: false,
    testTimeout: 20_000,
  },
})
