/** A Python environment with a vLLM for CPUs, made once in the user's cache folder: the plug-in's tests run a real vLLM. */
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, globSync, readFileSync, rmSync } from "node:fs"
import { join, relative } from "node:path"
import {
  folderOf,
  type PythonEnvironment,
  pythonEnvironment,
  type Uv,
} from "../../test/python-environment.ts"

const REQUIREMENTS = join(import.meta.dirname, "environments")

/** What vLLM needs to know to run small and alone, on this machine's processors. */
export const VLLM_SETTINGS = {
  HF_HUB_OFFLINE: "1",
  OMP_NUM_THREADS: "1",
  VLLM_CPU_KVCACHE_SPACE: "1",
  VLLM_CPU_OMP_THREADS_BIND: "nobind",
  VLLM_NO_USAGE_STATS: "1",
  VLLM_TARGET_DEVICE: "cpu",
}

export interface Environment extends PythonEnvironment {
  /** "0.32", as its requirements are named. */
  version: string
}

/** The environment of `environments/vllm-<version>.txt`; made where it is not there yet (minutes, gigabytes).
 * Throws CannotMake where no Python or no package index can be had. */
export function environmentOf(version: string, log: (line: string) => void): Environment {
  const make = (folder: string, uv: Uv) => makeVllm(version, folder, uv)
  const recipe = { ...sourcesOf(version), cost: "about 6 GB, some minutes", make }
  return { version, ...pythonEnvironment(recipe, log) }
}

function sourcesOf(version: string): { name: string; files: string[] } {
  const names = [`vllm-${version}.txt`, `vllm-${version}.over.txt`, "overrides.txt", "tools.txt"]
  return { name: `vllm-${version}`, files: names.map((name) => join(REQUIREMENTS, name)) }
}

function makeVllm(version: string, folder: string, uv: Uv): void {
  const named = (name: string) => ["--requirements", join(REQUIREMENTS, name)]
  const overrides = ["--overrides", join(REQUIREMENTS, "overrides.txt")]
  const base = baseOf(version)
  if (base === null || !isCopied(base, folder)) {
    uv.create(folder)
    uv.install(folder, ...overrides, ...named(`vllm-${version}.txt`), ...named("tools.txt"))
  }
  // A newer vLLM's Python over an older one's kernels, where no newer one is built for processors.
  const over = `vllm-${version}.over.txt`
  if (existsSync(join(REQUIREMENTS, over))) uv.install(folder, "--no-deps", ...named(over))
}

/** The environment of the version that this one is laid over, if that is there. */
function baseOf(version: string): string | null {
  const textOf = (name: string) => readFileSync(join(REQUIREMENTS, name), "utf8")
  if (!existsSync(join(REQUIREMENTS, `vllm-${version}.over.txt`))) return null
  const [base = version] = /(?<=vllm-cpu==)\d+\.\d+/.exec(textOf(`vllm-${version}.txt`)) ?? []
  if (base === version || textOf(`vllm-${base}.txt`) !== textOf(`vllm-${version}.txt`)) return null
  const folder = folderOf(sourcesOf(base))
  return existsSync(folder) ? folder : null
}

/** All but vLLM itself, which is written over, shares its files with the original: gigabytes, and minutes of compiling. False
 * where files cannot be shared. */
function isCopied(original: string, copy: string): boolean {
  if (spawnSync("cp", ["-al", original, copy]).status !== 0) {
    rmSync(copy, { recursive: true, force: true })
    return false
  }
  for (const place of globSync(join(copy, "lib", "python*", "site-packages", "vllm"))) {
    rmSync(place, { recursive: true })
    cpSync(join(original, relative(copy, place)), place, { recursive: true, preserveTimestamps: true })
  }
  return true
}
