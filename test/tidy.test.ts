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
  explain: ["core"],
  tracing: ["core", "explain"],
  fit: ["core"],
  sim: ["core", "router", "fit"],
  engine: ["core"],
  models: ["engine"],
  profile: ["core", "engine", "models", "fit"],
  telemetry: ["core", "replica"],
  siblings: ["router"],
  replica: ["core", "engine", "config", "text"],
  text: ["core", "engine"],
  scale: ["core", "router", "sim", "load"],
  serve: [
    "core",
    "router",
    "engine",
    "telemetry",
    "replica",
    "text",
    "config",
    "scale",
    "explain",
    "siblings",
  ],
  wire: ["core", "replica", "engine", "text", "config"],
  http: [
    ...["core", "serve", "wire", "replica", "engine", "telemetry", "text", "config", "scale", "explain"],
    "siblings",
  ],
  "planner-process": [
    ...["core", "config", "engine", "replica", "wire", "serve", "telemetry", "fit", "profile", "explain"],
  ],
  load: ["core", "config"],
  study: ["core", "router", "sim", "load", "config", "fit", "explain"],
  instances: ["core"],
  "index.ts": ["core", "sim"],
  vllm: ["router"],
  fleet: [
    ...["core", "router", "config", "engine", "telemetry", "replica", "wire", "text", "serve", "fit"],
    "siblings",
  ],
  cli: [
    "core",
    "router",
    "engine",
    "models",
    "profile",
    "fit",
    "telemetry",
    "replica",
    "text",
    "serve",
    "wire",
    "http",
    "load",
    "sim",
    "scale",
    "study",
    "instances",
    "explain",
    "tracing",
    "fleet",
    "vllm",
    "config",
    "planner-process",
    "siblings",
  ],
}
const PURE = ["core", "router"]
/** The same within the core: its folders, the plain words all of them use, and the state machine on top. */
const CORE_MAY_IMPORT: Record<string, readonly string[]> = {
  words: [],
  kv: ["words"],
  learn: ["words"],
  planner: ["words", "kv", "learn"],
  policy: ["words", "kv", "learn", "planner"],
  replica: ["words", "kv", "learn", "planner", "policy"],
}
const CORE_WORDS = [
  "protocol.ts",
  "options.ts",
  "assert.ts",
  "graphs.ts",
  "cost-model.ts",
  "cost.ts",
  "request.ts",
  "time-account.ts",
]
const CORE_REPLICA = [
  "replica.ts",
  "bookkeeper.ts",
  "config.ts",
  "flight.ts",
  "foresight.ts",
  "landing.ts",
  "line.ts",
  "owned-kv.ts",
  "recovery.ts",
  "moved.ts",
  "round.ts",
  "seen.ts",
  "snapshot.ts",
]
/** Files beside the components that every impure one may use. */
const COMMON = ["beside.ts", "errors.ts", "free-port.ts", "random.ts"]

/** Requests, policies and processes are things. Such words make a reader look for a person; people may have them. */
const PEOPLE_WORDS =
  /\b(who|whom|whoever|no one|nobody|somebody|someone|anybody|anyone|everybody|everyone)\b/gi
/** Word lists that generated models and texts are made of. */
const WORD_LISTS = ["engine/fake/text.ts", "models/bpe-vocab.ts"]
/** Lines about people. */
const ABOUT_PEOPLE: readonly string[] = ["What is being done, for people who ask."]

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

/** Paths below src of the own files that a file imports, types included. */
const ownImports = (source: Source) =>
  imports(source)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => relative(SRC, resolve(dirname(join(SRC, source.path)), specifier)))

/** Which part of the core a file below src/core is; undefined where it has none yet. */
function partOfCore(path: string): string | undefined {
  const [, first, deeper] = path.split(/[\\/]/)
  if (deeper !== undefined) return first
  if (CORE_WORDS.includes(first!)) return "words"
  return CORE_REPLICA.includes(first!) ? "replica" : undefined
}

/** A path that leads back to where it began, or null: depth first, a file that led nowhere is not tried again. */
function circleIn(graph: ReadonlyMap<string, readonly string[]>): string[] | null {
  const done = new Set<string>()
  const visit = (path: string, way: string[]): string[] | null => {
    const before = way.indexOf(path)
    if (before >= 0) return [...way.slice(before), path]
    if (done.has(path)) return null
    for (const next of graph.get(path) ?? []) {
      const circle = visit(next, [...way, path])
      if (circle !== null) return circle
    }
    done.add(path)
    return null
  }
  for (const path of graph.keys()) {
    const circle = visit(path, [])
    if (circle !== null) return circle
  }
  return null
}

describe("the house", () => {
  test("has a room for every file", () => {
    for (const { path, component } of sources) {
      expect(component in MAY_IMPORT || COMMON.includes(path), `src/${path} is in no known component`).toBe(
        true,
      )
    }
  })

  test.each(sources.filter(({ path }) => !isTest(path)))("src/$path imports one way", (source) => {
    for (const target of ownImports(source)) {
      if (COMMON.includes(target) || target.startsWith("..")) {
        expect(PURE, `src/${source.path} imports ${target}`).not.toContain(source.component)
        continue
      }
      const component = target.split(/[\\/]/)[0]!
      const allowed = [source.component, ...(MAY_IMPORT[source.component] ?? [])]
      expect(allowed, `src/${source.path} imports ${target}`).toContain(component)
    }
  })

  test.each(sources.filter(({ path, component }) => component === "core" && !isTest(path)))(
    "src/$path imports downwards within the core",
    (source) => {
      const part = partOfCore(source.path)
      expect(CORE_MAY_IMPORT, `src/${source.path} is in no known part of the core`).toHaveProperty([
        part ?? "",
      ])
      for (const target of ownImports(source)) {
        const allowed = [part, ...CORE_MAY_IMPORT[part!]!]
        expect(allowed, `src/${source.path} imports ${target}`).toContain(partOfCore(target))
      }
    },
  )

  test("imports nothing in a circle, types included", () => {
    const graph = new Map(
      sources.filter(({ path }) => !isTest(path)).map((source) => [source.path, ownImports(source)]),
    )
    const circle = circleIn(graph)
    expect(circle, `imports go round: ${circle?.map((path) => `src/${path}`).join(" -> ")}`).toBeNull()
  })

  test("would see a circle", () => {
    const graph = (...edges: [string, string[]][]) => new Map(edges)
    expect(circleIn(graph(["a", ["b", "c"]], ["b", ["c"]], ["c", []]))).toBeNull()
    expect(circleIn(graph(["a", ["b"]], ["b", ["c"]], ["c", ["b"]]))).toEqual(["b", "c", "b"])
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

  test.each(sources)("src/$path is a small room", ({ text }) => {
    expect(text.split("\n").length).toBeLessThanOrEqual(400)
  })

  test.each(["test", "bench", "deploy"])("rooms of %s are small, too", (folder) => {
    const paths = readdirSync(join(SRC, "..", folder), { recursive: true, encoding: "utf8" })
    const large = paths
      .filter((path) => path.endsWith(".ts") && !path.includes("node_modules"))
      .filter((path) => readFileSync(join(SRC, "..", folder, path), "utf8").split("\n").length > 400)
    expect(large).toEqual([])
  })

  test.each(sources.filter(({ path }) => !WORD_LISTS.includes(path)))(
    "src/$path calls no thing a person",
    ({ text }) => {
      const found = text.split("\n").flatMap((line, at) => {
        const words = ABOUT_PEOPLE.some((about) => line.includes(about)) ? null : line.match(PEOPLE_WORDS)
        return words === null ? [] : [`line ${at + 1}, "${words[0]}": ${line.trim()}`]
      })
      expect(found).toEqual([])
    },
  )

  test("refers to sections of docs/design.md that exist", () => {
    const design = readFileSync(join(SRC, "../docs/design.md"), "utf8")
    const sections = [...design.matchAll(/^## \d+\. (.+)$/gm)].map((match) => match[1]!)
    const missing = sources.flatMap(({ path, text }) =>
      [...text.replace(/\n[\s*]*/g, " ").matchAll(/docs\/design\.md, ([A-Z][\w ]*)/g)]
        .map((match) => match[1]!)
        .filter((named) => !sections.some((section) => named.startsWith(section)))
        .map((named) => `src/${path}: ${named}`),
    )
    expect(missing).toEqual([])
    expect(sections.length).toBeGreaterThan(0)
  })
})
