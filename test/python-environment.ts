/** Python environments that tests and benches run other people's programs in: made once, in the user's cache folder, with uv. */
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { cacheFolder } from "../src/models/cache.ts"

// Of all that is started from here, as vitest's set-up has it for its own tests.
if (process.env.STALL_MS !== undefined) await import("./stalls.ts")

/** Those that vLLM and the clients take, best first. */
const PYTHONS = ["3.12", "3.13", "3.11"] as const

/** By chance in Python's processes is the order of sets, and vLLM's first hash of prefixes: the same for the same commit, as the draws of
 * property tests (PROPERTY_SEED). */
export const PYTHON_CHANCE = { PYTHONHASHSEED: String(Number(process.env.PROPERTY_SEED ?? 0) >>> 0) }

/** What stands in the way is not the project's: the tests are skipped, with this as the reason. */
export class CannotMake extends Error {
  override readonly name = "CannotMake"
}

/** How an environment is made. */
export interface Recipe {
  /** Begins its folder's name. */
  name: string
  /** Files that say what is in it: another text in one of them is another environment. Those that are missing count as empty. */
  files: readonly string[]
  /** What making it costs, for the line that announces it. */
  cost: string
  /** Makes it in `folder`, which is not there yet. */
  make(folder: string, uv: Uv): void
}

export interface PythonEnvironment {
  folder: string
  python: string
}

/** The environment of a recipe; made where it is not there yet (minutes, gigabytes).
 * Throws CannotMake where no Python or no package index can be had. */
export function pythonEnvironment(recipe: Recipe, log: (line: string) => void): PythonEnvironment {
  const folder = folderOf(recipe)
  const python = join(folder, "bin", "python")
  if (!existsSync(python)) make(recipe, folder, log)
  return { folder, python }
}

/** A recipe that is nothing but a file of requirements: all that is installed, each with its version. */
export function requirements(name: string, file: string, cost: string): Recipe {
  const make = (folder: string, uv: Uv) => {
    uv.create(folder)
    uv.install(folder, "--no-deps", "--requirements", file)
  }
  return { name, files: [file], cost, make }
}

/** Lints a folder of Python tests and runs them (`args`: pytest's). */
export async function pytestPasses(
  { python }: PythonEnvironment,
  folder: string,
  options: { env: Record<string, string>; args: readonly string[] },
): Promise<boolean> {
  const env = { ...PYTHON_CHANCE, ...process.env, ...options.env }
  const pytest = ["pytest", "--quiet", "--durations=5", ...options.args]
  for (const module of [["ruff", "check", "."], ["ruff", "format", "--check", "."], pytest]) {
    const stdio = ["ignore", "inherit", "inherit"] as const
    const child = spawn(python, ["-m", ...module], { cwd: folder, stdio: [...stdio], env })
    const [status] = await once(child, "close")
    if (status !== 0) return false
  }
  return true
}

/** What `make` makes, or null where that cannot be done for no fault of ours; the log has the reason. */
export function madeOrNull<T>(name: string, make: () => T, log: (line: string) => void): T | null {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof CannotMake)) throw error
    log(`${name} is skipped: ${error.message}`)
    return null
  }
}

/** Where a recipe's environment is, or will be. */
export function folderOf({ name, files }: Pick<Recipe, "name" | "files">): string {
  const hash = createHash("sha256")
  for (const file of files) if (existsSync(file)) hash.update(readFileSync(file))
  return join(cacheFolder(), `${name}-${hash.digest("hex").slice(0, 8)}`)
}

/** Made beside its place and moved there whole: an interrupted run, or two at once, leave no half environment. */
function make(recipe: Recipe, folder: string, log: (line: string) => void): void {
  const unfinished = `${folder}.${process.pid}.part`
  const uv = new Uv(log)
  log(`making ${recipe.name} in ${folder}: ${recipe.cost}, once`)
  try {
    recipe.make(unfinished, uv)
    renameSync(unfinished, folder)
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    // The other of two runs at once was faster.
    if (!existsSync(folder)) throw error
  }
}

/** uv, as it is installed, or from the package index into the cache folder. What it says of its network, or of a Python that
 * is not there, is CannotMake; all else is a fault of ours. */
export class Uv {
  readonly #program: string

  constructor(log: (line: string) => void) {
    this.#program = uvProgram(log)
  }

  /** An empty environment. */
  create(folder: string): void {
    this.#run(["venv", "--quiet", "--relocatable", "--python", aPython(), folder], "no Python could be had")
  }

  /** Installs into an environment: `args` are those of `uv pip install`. */
  install(folder: string, ...args: string[]): void {
    const python = join(folder, "bin", "python")
    // Compiled now: where Python may not write beside its sources, each of a dozen starts would compile torch and vLLM anew, half a
    // minute each.
    const install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    this.#run([...install, ...args], "the package index cannot be reached")
  }

  #run(args: string[], cannot: string): void {
    const { status, stderr } = spawnSync(this.#program, args, {
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
}

/** An installed Python that will do, or the version for uv to fetch. pyenv's own commands run only the version that is chosen,
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

/** uv has certificates of its own, which know nothing of a proxy's. */
function certificates(): Record<string, string> {
  const system = "/etc/ssl/certs/ca-certificates.crt"
  return process.env.SSL_CERT_FILE === undefined && existsSync(system) ? { SSL_CERT_FILE: system } : {}
}

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
