/** The guest's scripts are files of their own and go into the binary as text: `import x from "./x.sh" with { type: "text" }`. */
declare module "*.sh" {
  const text: string;
  export default text;
}
