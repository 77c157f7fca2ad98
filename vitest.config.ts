import { defineConfig } from "vitest/config"

const { PROPERTY_SEED, PROPERTY_FACTOR, STALL_MS } = process.env

export default defineConfig({
  test: {
    setupFiles: [
      ...(PROPERTY_SEED === undefined ? [] : ["test/property-seed.ts"]),
      ...(PROPERTY_FACTOR === undefined ? [] : ["test/property-factor.ts"]),
      ...(STALL_MS === undefined ? [] : ["test/stalls.ts"]),
    ],
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "deploy/**/*.test.ts"],
    testTimeout: 120_000 * Number(PROPERTY_FACTOR ?? 1) * (STALL_MS === undefined ? 1 : 4),
    hookTimeout: 120_000,
    // As long as a busy machine may take: with 25 others at two cores a server starts in half a minute.
    expect: { poll: { timeout: 60_000 } },
    // Two cores: the engine's own threads must not fight test workers for them.
    maxWorkers: 2,
  },
})
