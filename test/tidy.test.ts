/** The house stays in order: imports point one way, the core stays pure, every room says what it is for. */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { describe, expect, test } from "vitest"

const SRC = resolve(import.meta.dirname, "../src")

/** Which components a component may import from (besides itself and, outside the pure ones, COMMON). */
const MAY_IMPORT: Record<string, readonly string[]> = {
  core: [],
  router: ["core"],
  config: ["core"],
  sim: ["core", "router"],
  engine: ["core"],
  models: ["engine"],
  profile: ["core", "engine", "models"],
  telemetry: ["core"],
  replica: ["core", "engine"],
  text: ["core", "engine"],
  serve: ["core", "router", "engine", "telemetry", "replica", "text", "config"],
  http: ["core", "serve", "engine", "telemetry", "text", "config"],
  load: ["core", "config"],
  study: ["core", "router", "sim", "load", "config"],
  instances: ["core"],
  cli: [
    "core",
    "router",
    "engine",
    "models",
    "profile",
    "telemetry",
    "replica",
    "text",
    "serve",
    "http",
    "load",
    "sim",
    "study",
    "instances",
    "config",
  ],
}
const PURE = ["core", "router"]
/** Files beside the components that every impure one may use. */
const COMMON = ["errors.ts", "random.ts"]

interface Source {
  path: string
  component: string
  text: string
}

const sources: Source[] = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => ({ path, component: path.split(/[\\/]/)[0]!, text: readFileSync(join(SRC, path), "utf8") }))

/** Tests and shared fixtures may look further afield. */
const isTest = (path: string) => /\.test\.ts$|\.suite\.ts$|testing\.ts$|fixtures\.ts$/.test(path)

const imports = (source: Source) =>
  [...source.text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]!)

describe("the house", () => {
  test("has a room for every file", () => {
    for (const { path, component } of sources) {
      expect(component in MAY_IMPORT || COMMON.includes(path), `src/${path} is in no known component`).toBe(
        true,
      )
    }
  })

  test.each(sources.filter(({ path }) => !isTest(path)))("src/$path imports one way", (source) => {
    for (const specifier of imports(source)) {
      if (!specifier.startsWith(".")) continue
      const target = relative(SRC, resolve(dirname(join(SRC, source.path)), specifier))
      if (COMMON.includes(target) || target.startsWith("..")) {
        expect(PURE, `src/${source.path} imports ${specifier}`).not.toContain(source.component)
        continue
      }
      const component = target.split(/[\\/]/)[0]!
      const allowed = [source.component, ...(MAY_IMPORT[source.component] ?? [])]
      expect(allowed, `src/${source.path} imports ${specifier}`).toContain(component)
    }
  })

  test.each(sources.filter(({ path, component }) => PURE.includes(component) && !isTest(path)))(
    "src/$path is pure",
    (source) => {
      const code = source.text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "")
      expect(code).not.toMatch(
        /\bDate\b|performance\.|Math\.random|setTimeout|setInterval|setImmediate|process\.|console\./,
      )
      for (const specifier of imports(source)) expect(specifier, `src/${source.path}`).toMatch(/^\./)
    },
  )

  test.each(sources)("src/$path says what it is for", ({ text }) => {
    expect(text).toMatch(/^(#!.*\n)?\/\*\* \S/)
  })

  test.each(sources.filter(({ path }) => !isTest(path)))("src/$path is a small room", ({ text }) => {
    expect(text.split("\n").length).toBeLessThanOrEqual(400)
  })
})
