import{u as d}from"./index-Z3HWJGZM.js";function e(){return d("h1",{children:"Add"})}export{e as default};
