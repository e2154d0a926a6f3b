import{u as r}from"./index-Z3HWJGZM.js";function n({id:e}){return r("h1",{children:e})}export{n as default};
