"""Published figures of AFLW2000-3D, as data. Papers copy each other's rows, not always rightly."""

from __future__ import annotations

from dataclasses import dataclass

_SYNERGY = "Wu et al., 3DV 2021 (SynergyNet), table of github.com/choyingw/SynergyNet"
_SADRNET = "Ruan et al., TIP 2021 (SADRNet), as listed by wizwand.com"
_HGFPN = "README of HGFPN, with the public code"
_FSA = "Yang et al., CVPR 2019 (FSA-Net), table 1"
_6D = "Hempel et al., ICIP 2022 (6DRepNet), README of github.com/thohemp/6DRepNet"
_IMG2POSE = "github.com/vitoralbiero/img2pose, notebook"


@dataclass(frozen=True)
class Published:
    """One row of a table; None where a value is not given."""

    method: str
    values: tuple[float | None, ...]
    source: str


# NME of 68 points in %: |yaw| 0-30, 30-60, 60-90 degrees, mean of these bins, mean of the pictures.
LANDMARKS = (
    Published("ESR", (4.60, 6.70, 12.67, 7.99, None), _SYNERGY),
    Published("3DDFA (2016)", (3.43, 4.24, 7.17, 4.94, None), _SYNERGY),
    Published("3DDFA, PyTorch", (3.11, 4.18, 5.52, None, 3.68), _HGFPN),
    Published("Dense Corr", (3.62, 6.06, 9.56, 6.41, None), _SYNERGY),
    Published("3DSTN", (3.15, 4.33, 5.98, 4.49, None), _SYNERGY),
    Published("3D-FAN", (3.16, 3.53, 4.60, 3.76, None), _SYNERGY),
    Published("3D-FAN, public code", (2.51, 3.27, 4.46, None, 2.95), _HGFPN),
    Published("3DDFA-TPAMI", (2.84, 3.57, 4.96, 3.79, None), _SYNERGY),
    Published("PRNet", (2.75, 3.51, 4.61, 3.62, None), _SYNERGY),
    Published("2DASL", (2.75, 3.46, 4.45, 3.55, None), _SYNERGY),
    Published("3DDFA-V2 (MR)", (2.75, 3.49, 4.53, 3.59, None), _SYNERGY),
    Published("3DDFA-V2 (MRS)", (2.63, 3.42, 4.48, 3.51, None), _SYNERGY),
    Published("SADRNet", (None, None, None, 3.46, None), _SADRNET),
    Published("SynergyNet", (2.65, 3.30, 4.27, 3.41, None), _SYNERGY),
    Published("HGFPN", (2.29, 2.90, 4.32, None, 2.71), _HGFPN),
)

# Mean absolute errors in degrees: yaw, pitch, roll, mean. Trained on 300W-LP.
POSE = (
    Published("dlib, 68 points", (23.1, 13.6, 10.5, 15.8), _FSA),
    Published("FAN, 12 points", (6.36, 12.3, 8.71, 9.12), _FSA),
    Published("3DDFA", (5.40, 8.53, 8.25, 7.39), _FSA),
    Published("HopeNet, alpha 2", (6.47, 6.56, 5.44, 6.16), _FSA),
    Published("HopeNet, alpha 1", (6.92, 6.64, 5.67, 6.41), _FSA),
    Published("SSR-Net-MD", (5.14, 7.09, 5.89, 6.01), _FSA),
    Published("FSA-Net, fusion", (4.50, 6.08, 4.64, 5.07), _FSA),
    Published("WHENet-V", (4.44, 5.75, 4.31, 4.83), _6D),
    Published("WHENet", (5.11, 6.24, 4.92, 5.42), _6D),
    Published("QuatNet", (3.97, 5.62, 3.92, 4.50), _6D),
    Published("HPE", (4.80, 6.18, 4.87, 5.28), _6D),
    Published("TriNet", (4.04, 5.77, 4.20, 4.67), _6D),
    Published("FDN", (3.78, 5.61, 3.88, 4.42), _6D),
    Published("6DRepNet", (3.63, 4.91, 3.37, 3.97), _6D),
    Published("img2pose", (3.43, 5.03, 3.28, 3.91), _IMG2POSE),
    Published("3DDFA-TPAMI", (4.33, 5.98, 4.30, 4.87), _SYNERGY),
    Published("2DASL", (3.85, 5.06, 3.50, 4.13), _SYNERGY),
    Published("3DDFA-V2", (4.06, 5.26, 3.48, 4.27), _SYNERGY),
    Published("RankPose", (2.99, 4.75, 3.25, 3.66), _SYNERGY),
    Published("SynergyNet", (3.42, 4.09, 2.55, 3.35), _SYNERGY),
)
