import{u as d}from"./index-QX9ItLxR.js";function e(){return d("h1",{children:"Add"})}export{e as default};
