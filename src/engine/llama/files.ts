/** Where the prebuilt llama.cpp libraries are: in the platform package `@node-llama-cpp/<platform>` that npm
 * installed, CPU by default, CUDA or Vulkan where that variant is installed too, or any folder. */
import { existsSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join, resolve } from "node:path"
import { UserError } from "../../errors.ts"

/** The release of llama.cpp whose structs `native.ts` describes, and the packages that carry it. */
export const LLAMA_VERSION = "0.5.0"
export const PACKAGE_VERSION = "3.22.1"

/** "auto" takes a GPU variant where one is installed. Anything else is a folder with the libraries. */
export type LibraryChoice = "auto" | "cpu" | "cuda" | "vulkan" | (string & {})

export interface LibraryFiles {
  folder: string
  ggmlBase: string
  ggml: string
  llama: string
}

/** The library files of a choice, or a UserError that says what to install. */
export function findLibrary(choice: LibraryChoice, platform = platformName()): LibraryFiles {
  const variants = { auto: ["cuda", "vulkan", "cpu"], cpu: ["cpu"], cuda: ["cuda"], vulkan: ["vulkan"] }
  const wanted = Object.hasOwn(variants, choice) ? variants[choice as keyof typeof variants] : null
  if (!wanted) return filesIn(resolve(choice), `the folder ${choice}`)
  for (const variant of wanted) {
    const folder = packageFolder(packageName(variant, platform))
    if (folder) return filesIn(folder, packageName(variant, platform))
  }
  const name = packageName(wanted.at(-1)!, platform)
  throw new UserError(
    `the llama.cpp library for this machine is not installed; run: npm install --no-save ${name}@${PACKAGE_VERSION}`,
    { code: "library_missing" },
  )
}

function platformName(): string {
  const system = { linux: "linux", darwin: "mac", win32: "win" }[process.platform as string]
  if (!system || !["x64", "arm64"].includes(process.arch)) {
    throw new UserError(`there is no prebuilt llama.cpp for ${process.platform} ${process.arch}`, {
      code: "library_missing",
    })
  }
  return `${system}-${process.arch}`
}

/** On Apple silicon the default package has Metal in it. */
function packageName(variant: string, platform: string): string {
  const suffix = variant !== "cpu" ? `-${variant}` : platform === "mac-arm64" ? "-metal" : ""
  return `@node-llama-cpp/${platform}${suffix}`
}

function packageFolder(name: string): string | null {
  try {
    const entry = createRequire(import.meta.url).resolve(name)
    const folder = join(dirname(entry), "..", "bins", name.split("/")[1]!)
    return existsSync(folder) ? folder : null
  } catch {
    return null
  }
}

function filesIn(folder: string, what: string): LibraryFiles {
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch (cause) {
    throw new UserError(`${what} cannot be read; give a folder with libllama in it`, { cause })
  }
  const find = (stem: string) => {
    const pattern = new RegExp(`^(lib)?${stem}(\\.(cuda|vulkan|metal))?(\\.v[\\d.]+)?\\.(so|dylib|dll)$`)
    const name = names.find((candidate) => pattern.test(candidate))
    if (!name) throw new UserError(`${what} has no ${stem} library; reinstall it with: npm install`)
    return join(folder, name)
  }
  return { folder, ggmlBase: find("ggml-base"), ggml: find("ggml"), llama: find("llama") }
}
