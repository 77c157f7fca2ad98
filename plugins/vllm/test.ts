/** Runs the plug-in's tests with each vLLM that it is pinned to: node plugins/vllm/test.ts [pytest's arguments].
 * Without a package index, or a Python, it says so and is done: nothing of ours is wrong then. */
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { CannotMake, type Environment, environmentOf } from "./environment.ts"

const HERE = import.meta.dirname
const say = (line: string) => console.log(`test:vllm: ${line}`)

/** What vLLM needs to know to run small and alone, on this machine's processors. */
const VLLM_SETTINGS = {
  HF_HUB_OFFLINE: "1",
  OMP_NUM_THREADS: "1",
  VLLM_CPU_KVCACHE_SPACE: "1",
  VLLM_CPU_OMP_THREADS_BIND: "nobind",
  VLLM_NO_USAGE_STATS: "1",
}

function check({ version, python }: Environment, more: readonly string[]): boolean {
  say(`with vLLM ${version}`)
  const commands = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy", "--strict", "slos_serve_vllm"],
    ["pytest", "--quiet", ...more],
  ]
  return commands.every((command) => {
    const { status } = spawnSync(python, ["-m", ...command], {
      cwd: HERE,
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...VLLM_SETTINGS, ...process.env, SLOS_SERVE_NODE: process.execPath },
    })
    return status === 0
  })
}

const versions = readdirSync(join(HERE, "environments")).flatMap(
  (name) => /^vllm-(.+)\.txt$/.exec(name)?.slice(1) ?? [],
)
try {
  const environments = versions.map((version) => environmentOf(version, say))
  process.exitCode = environments.every((environment) => check(environment, process.argv.slice(2))) ? 0 : 1
} catch (error) {
  if (!(error instanceof CannotMake)) throw error
  say(`skipped, as there is no vLLM to test with: ${error.message}`)
}
