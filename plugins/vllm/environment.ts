/** A Python environment with a vLLM for CPUs, made once in the user's cache folder: the plug-in's tests run a real vLLM. */
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs"
import { homedir } from "node:os"
import { join, relative } from "node:path"
import { cacheFolder } from "../../src/models/cache.ts"

const HERE = import.meta.dirname
/** Those that vLLM takes, best first. */
const PYTHONS = ["3.12", "3.13", "3.11"] as const
const REQUIREMENTS = join(HERE, "environments")

/** What vLLM needs to know to run small and alone, on this machine's processors. */
export const VLLM_SETTINGS = {
  HF_HUB_OFFLINE: "1",
  OMP_NUM_THREADS: "1",
  VLLM_CPU_KVCACHE_SPACE: "1",
  VLLM_CPU_OMP_THREADS_BIND: "nobind",
  VLLM_NO_USAGE_STATS: "1",
  VLLM_TARGET_DEVICE: "cpu",
}

/** What stands in the way is not the project's: the tests are skipped, with this as the reason. */
export class CannotMake extends Error {
  override readonly name = "CannotMake"
}

export interface Environment {
  /** "0.32", as its requirements are named. */
  version: string
  folder: string
  python: string
}

/** The environment of `environments/vllm-<version>.txt`; made where it is not there yet (minutes, gigabytes).
 * Throws CannotMake where no Python or no package index can be had. */
export function environmentOf(version: string, log: (line: string) => void): Environment {
  const folder = folderOf(version)
  const python = join(folder, "bin", "python")
  if (!existsSync(python)) make(version, folder, log)
  return { version, folder, python }
}

function folderOf(version: string): string {
  return join(cacheFolder(), `vllm-${version}-${fingerprint(version)}`)
}

/** Another text of the requirements is another environment. */
function fingerprint(version: string): string {
  const hash = createHash("sha256")
  for (const name of [`vllm-${version}.txt`, `vllm-${version}.over.txt`, "overrides.txt", "tools.txt"])
    if (existsSync(join(REQUIREMENTS, name))) hash.update(readFileSync(join(REQUIREMENTS, name)))
  return hash.digest("hex").slice(0, 8)
}

/** Made beside its place and moved there whole: an interrupted run, or two at once, leave no half environment. */
function make(version: string, folder: string, log: (line: string) => void): void {
  const unfinished = `${folder}.${process.pid}.part`
  const uv = uvProgram(log)
  log(`making an environment with vLLM ${version} in ${folder}: about 6 GB, some minutes, once`)
  try {
    const named = (name: string) => ["--requirements", join(REQUIREMENTS, name)]
    const overrides = ["--overrides", join(REQUIREMENTS, "overrides.txt")]
    // Compiled now: where Python may not write beside its sources, each of a dozen starts would compile torch and vLLM anew, half a
    // minute each.
    const install = [
      "pip",
      "install",
      "--quiet",
      "--compile-bytecode",
      "--python",
      join(unfinished, "bin", "python"),
    ]
    const cannot = "the package index cannot be reached"
    const base = baseOf(version)
    if (base === null || !isCopied(base, unfinished)) {
      run(
        uv,
        ["venv", "--quiet", "--relocatable", "--python", aPython(), unfinished],
        "no Python could be had",
      )
      run(uv, [...install, ...overrides, ...named(`vllm-${version}.txt`), ...named("tools.txt")], cannot)
    }
    // A newer vLLM's Python over an older one's kernels, where no newer one is built for processors.
    const over = `vllm-${version}.over.txt`
    if (existsSync(join(REQUIREMENTS, over))) run(uv, [...install, "--no-deps", ...named(over)], cannot)
    renameSync(unfinished, folder)
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    // The other of two runs at once was faster.
    if (!existsSync(folder)) throw error
  }
}

/** The environment of the version that this one is laid over, if that is there. */
function baseOf(version: string): string | null {
  const textOf = (name: string) => readFileSync(join(REQUIREMENTS, name), "utf8")
  if (!existsSync(join(REQUIREMENTS, `vllm-${version}.over.txt`))) return null
  const [base = version] = /(?<=vllm-cpu==)\d+\.\d+/.exec(textOf(`vllm-${version}.txt`)) ?? []
  if (base === version || textOf(`vllm-${base}.txt`) !== textOf(`vllm-${version}.txt`)) return null
  return existsSync(folderOf(base)) ? folderOf(base) : null
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

/** An installed Python that vLLM takes, or the version for uv to fetch. pyenv's own commands run only the version that is chosen,
 * so its folders are looked into. */
function aPython(): string {
  const pyenv = join(process.env.PYENV_ROOT ?? join(homedir(), ".pyenv"), "versions")
  const kept = existsSync(pyenv) ? readdirSync(pyenv) : []
  for (const version of PYTHONS) {
    const places = kept
      .filter((name) => name.startsWith(`${version}.`))
      .map((name) => join(pyenv, name, "bin", "python"))
    const found = [`python${version}`, ...places].find((name) => spawnSync(name, ["--version"]).status === 0)
    if (found !== undefined) return found
  }
  return PYTHONS[0]
}

/** Runs uv. What it says of its network, or of a Python that is not there, is CannotMake; all else is a fault of ours. */
function run(uv: string, args: string[], cannot: string): void {
  const { status, stderr } = spawnSync(uv, args, {
    encoding: "utf8",
    stdio: ["ignore", "inherit", "pipe"],
    env: { ...process.env, ...certificates() },
  })
  if (status === 0) return
  const last = stderr.trim().split("\n").slice(-12).join("\n")
  const isOutside =
    /fail\w* to (fetch|download)|dns error|timed? ?out|connect|No interpreter found|network/i.test(stderr)
  if (isOutside) throw new CannotMake(`${cannot}:\n${last}`)
  throw new Error(`uv ${args.slice(0, 2).join(" ")} failed:\n${last}`)
}

/** uv has certificates of its own, which know nothing of a proxy's. */
function certificates(): Record<string, string> {
  const system = "/etc/ssl/certs/ca-certificates.crt"
  return process.env.SSL_CERT_FILE === undefined && existsSync(system) ? { SSL_CERT_FILE: system } : {}
}

/** uv, as it is installed, or from the package index into the cache folder. */
function uvProgram(log: (line: string) => void): string {
  if (spawnSync("uv", ["--version"]).status === 0) return "uv"
  const folder = join(cacheFolder(), "uv")
  const program = join(folder, "bin", "uv")
  if (existsSync(program)) return program
  log(`installing uv into ${folder}`)
  mkdirSync(folder, { recursive: true })
  const python = ["python3", ...PYTHONS.map((version) => `python${version}`)].find(
    (name) => spawnSync(name, ["--version"]).status === 0,
  )
  if (python === undefined) throw new CannotMake("neither uv nor a Python is installed")
  try {
    execFileSync(python, ["-m", "venv", folder], { stdio: "pipe" })
    execFileSync(join(folder, "bin", "pip"), ["install", "--quiet", "uv==0.13.8"], { stdio: "pipe" })
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    throw new CannotMake(`uv cannot be installed: ${String((error as { stderr?: unknown }).stderr ?? error)}`)
  }
  return program
}
