/** How vLLM is started: which executable, and with which arguments beside the user's own. */

import { spawnSync } from "node:child_process"
import { accessSync, constants, statSync } from "node:fs"
import { basename, delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { UserError } from "../errors.ts"
import type { VllmArguments } from "./arguments.ts"
import { merged } from "./config-file.ts"

/** A program and what comes before the arguments of `vllm serve`. */
export interface Executable {
  program: string
  before: readonly string[]
  /** It takes the model's name without a flag, as `vllm serve` does. */
  takesModel: boolean
}

/** The plug-in that comes with this program. */
export const PLUGIN_FOLDER = fileURLToPath(new URL("../../plugins/vllm", import.meta.url))
const SCHEDULER = "slos_serve_vllm.Scheduler"
const MIDDLEWARE = "slos_serve_vllm.middleware.SloMiddleware"
const MODULE = "vllm.entrypoints.openai.api_server"
const PYTHON = /^python(\d+(\.\d+)*)?$/
const CLASSES_VARIABLE = "SLOS_SERVE_CLASSES"

type Environment = Readonly<Record<string, string | undefined>>

/** `given`: what the user named: a program on the PATH, a path, a Python, or one of these with arguments. Without it `vllm`
 * on the PATH, else a Python that has it. Throws UserError with what to do where there is none. */
export function findVllm(given: string | undefined, environment: Environment = process.env): Executable {
  if (given !== undefined) return named(given, environment)
  const vllm = onPath("vllm", environment)
  if (vllm !== null) return executable(vllm, [])
  for (const name of ["python3", "python"]) {
    const python = onPath(name, environment)
    if (python !== null && hasVllm(python)) return executable(python, [])
  }
  throw new UserError(
    "vLLM is not found: there is no vllm on the PATH, and python3 has no module of that name; install it (pip install " +
      "vllm) or say where it is, as --vllm ~/venv/bin/vllm",
  )
}

function named(given: string, environment: Environment): Executable {
  const [program = "", ...before] = isProgram(given) ? [given] : given.trim().split(/\s+/)
  const path = program.includes("/") ? program : onPath(program, environment)
  if (path === null || !isProgram(path))
    throw new UserError(
      `--vllm ${given}: ${program} is no program that can be run; give a path or a name on the PATH`,
    )
  return executable(path, before)
}

function executable(program: string, before: readonly string[]): Executable {
  const last = basename(before.findLast((word) => !word.startsWith("-")) ?? program)
  if (PYTHON.test(last)) return { program, before: [...before, "-m", MODULE], takesModel: false }
  return { program, before: [...before, "serve"], takesModel: true }
}

function onPath(name: string, environment: Environment): string | null {
  const folders = (environment.PATH ?? "").split(delimiter).filter((folder) => folder !== "")
  return folders.map((folder) => join(folder, name)).find(isProgram) ?? null
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Without importing it, which would take seconds. */
function hasVllm(python: string): boolean {
  const look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
  return spawnSync(python, ["-c", look], { stdio: "ignore", timeout: 20_000 }).status === 0
}

export interface LaunchOptions {
  port: number
  /** Where the planner listens. */
  socket: string
  /** Names of the SLO classes. */
  classes: readonly string[]
}

export interface Launch {
  program: string
  args: string[]
  /** Beside this process's own; undefined: without that. */
  environment: Record<string, string | undefined>
}

/** Throws UserError where vLLM would take a model that was not asked for: its server module reads none but after --model, and passes
 * over a name that stands after other arguments. */
export function checkModel({ takesModel }: Executable, { namesModel }: VllmArguments): void {
  if (takesModel || namesModel) return
  throw new UserError(
    "say which model vLLM is to serve, first of what comes after --: slos-serve vllm -- Qwen/Qwen3-8B --max-model-len 16384",
  )
}

/** vLLM reads the last of an argument that comes twice: ours come last. */
export function launchOf(
  { program, before, takesModel }: Executable,
  { args, model, additional }: VllmArguments,
  { port, socket, classes }: LaunchOptions,
  environment: Environment = process.env,
): Launch {
  const asked = model === null ? [] : takesModel ? [model] : ["--model", model]
  const config = merged(additional, { slos_serve: { socket, start: false } })
  const path = [PLUGIN_FOLDER, environment.PYTHONPATH ?? ""].filter((folder) => folder !== "")
  return {
    program,
    args: [
      ...before,
      ...asked,
      ...args,
      ...["--scheduler-cls", SCHEDULER, "--additional-config", JSON.stringify(config)],
      ...["--middleware", MIDDLEWARE, "--host", "127.0.0.1", "--port", String(port)],
    ],
    environment: { PYTHONPATH: path.join(delimiter), [CLASSES_VARIABLE]: classes.join(",") },
  }
}
