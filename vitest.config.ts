import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    setupFiles: process.env.PROPERTY_SEED === undefined ? [] : ["test/property-seed.ts"],
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "deploy/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // As long as a busy machine may take.
    expect: { poll: { timeout: 30_000 } },
    // Two cores: the engine's own threads must not fight test workers for them.
    maxWorkers: 2,
  },
})
