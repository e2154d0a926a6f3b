import{u as r}from"./index-Z3HWJGZM.js";function o({id:e}){return r("h1",{children:e})}export{o as default};
