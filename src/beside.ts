/** Modules that other threads and processes begin with: TypeScript in a checkout, JavaScript in the package. */

/** Address of the module of this name beside the one whose `import.meta.url` is given. */
export function moduleBeside(url: string, name: string): URL {
  return new URL(`./${name}${url.endsWith(".ts") ? ".ts" : ".js"}`, url)
}
