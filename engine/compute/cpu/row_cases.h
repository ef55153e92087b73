/* A product has its sums in registers only where the number of its rows is a constant: the cases of a switch over it. Whoever uses
 * these defines CASE(n). */
#ifndef BESAD_ENGINE_CPU_ROW_CASES_H
#define BESAD_ENGINE_CPU_ROW_CASES_H

#define CASES_TO_6 CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#define CASES_TO_8 CASES_TO_6 CASE(7) CASE(8)
#define CASES_TO_12 CASES_TO_8 CASE(9) CASE(10) CASE(11) CASE(12)

#endif
