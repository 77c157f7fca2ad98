/** Runs the plug-in's tests with each vLLM that it is pinned to, and those of our gateway before a real one:
 * node plugins/vllm/test.ts [--gateway: the latter alone | pytest's arguments: the former alone].
 * Without a package index, or a Python, it says so and is done: nothing of ours is wrong then. */
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { madeOrNull, PYTHON_CHANCE } from "../../test/python-environment.ts"
import { type Environment, environmentOf, VLLM_SETTINGS } from "./environment.ts"

const HERE = import.meta.dirname
const ROOT = join(HERE, "../..")
const say = (line: string) => console.log(`test:vllm: ${line}`)

/** The versions that there are requirements for. */
function versions(): string[] {
  const names = readdirSync(join(HERE, "environments"))
  return names.flatMap((name) => /^vllm-(\d+\.\d+)\.txt$/.exec(name)?.slice(1) ?? [])
}

/** What depends on vLLM's version; all else is looked at once, with the first one. */
const OF_VERSION = [
  "scheduler",
  "adapters",
  "engine",
  "fallback",
  "grammar",
  "models",
  "support",
  "verify",
].map((name) => `tests/test_${name}.py`)

const isGateway = process.argv[2] === "--gateway"
const asked = process.argv.slice(2)

function checks({ folder }: Environment, isFirst: boolean): string[][] {
  const pytest = ["pytest", "--quiet", "--durations=5", ...asked]
  if (!isFirst) return [asked.length > 0 ? pytest : [...pytest, ...OF_VERSION]]
  const mypy = ["mypy", "--strict", "--cache-dir", join(folder, "mypy"), "slos_serve_vllm"]
  return [["ruff", "check", "."], ["ruff", "format", "--check", "."], mypy, pytest]
}

function passes(environment: Environment, isFirst: boolean): boolean {
  say(`with vLLM ${environment.version}`)
  return checks(environment, isFirst).every((command) => {
    const { status } = spawnSync(environment.python, ["-m", ...command], {
      cwd: HERE,
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...VLLM_SETTINGS, ...PYTHON_CHANCE, ...process.env, SLOS_SERVE_NODE: process.execPath },
    })
    return status === 0
  })
}

function gatewayPasses({ python }: Environment): boolean {
  const vitest = join(ROOT, "node_modules", "vitest", "vitest.mjs")
  const { status } = spawnSync(process.execPath, [vitest, "run", "src/fleet/backends/vllm.test.ts"], {
    ...{ cwd: ROOT, stdio: "inherit", env: { ...process.env, VLLM_PYTHON: python } },
  })
  return status === 0
}

const wanted = isGateway ? versions().slice(0, 1) : versions()
const made = wanted.flatMap(
  (version) => madeOrNull(`vLLM ${version}`, () => environmentOf(version, say), say) ?? [],
)
const plugInPasses = () => made.every((one, at) => passes(one, at === 0))
// It knows nothing of vLLM's version: one is enough.
const isBehindToo = isGateway || asked.length === 0
const pass = (isGateway || plugInPasses()) && (!isBehindToo || made.slice(0, 1).every(gatewayPasses))
process.exitCode = pass ? 0 : 1
