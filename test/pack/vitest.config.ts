/** The package as npm installs it: needs the registry, and a minute for each version of Node. */
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/pack/*.pack.ts"],
    testTimeout: 300_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
})
